"""Unit selections of a batch: all units of a layer, a range, or a list; and the numbers that they mean."""

from __future__ import annotations

import json
from collections.abc import Sequence

from proxygrad.errors import UnitOutOfRange
from proxygrad.protocol.requests import UnitRange
from proxygrad.spec import LayerInfo


def select(selection: str | list[int] | UnitRange, layer: LayerInfo) -> Sequence[int]:
    """The selected units of ``layer``, in the order of the selection; a `range` where they are one.

    Raises `UnitOutOfRange` for the first that the layer does not have.
    """
    if isinstance(selection, str):
        return range(layer.units)
    if isinstance(selection, list):
        for unit in selection:
            _check(unit, layer)
        return _simplest(selection)
    _check(selection.start, layer)
    if selection.stop is not None:
        _check(selection.stop - 1, layer)
    return _simplest(
        range(selection.start, layer.units if selection.stop is None else selection.stop, selection.step)
    )


def to_json(units: Sequence[int]) -> str:
    """As `from_json` takes it: the same for the same units in the same order."""
    if isinstance(units, range):
        return json.dumps({"start": units.start, "stop": units.stop, "step": units.step})
    return json.dumps(list(units), separators=(",", ":"))


def from_json(text: str | bytes) -> Sequence[int]:
    """The units that `to_json` wrote."""
    read = json.loads(text)
    return range(read["start"], read["stop"], read["step"]) if isinstance(read, dict) else tuple(read)


def _check(unit: int, layer: LayerInfo) -> None:
    if unit >= layer.units:
        raise UnitOutOfRange(unit, layer.units, layer.name)


def _simplest(units: Sequence[int]) -> Sequence[int]:
    """A range where the units are one, that ends right behind the last; else as they are."""
    step = units[1] - units[0] if len(units) > 1 else 1
    if step > 0:
        found = range(units[0], units[-1] + 1, step)
        if len(found) == len(units) and all(a == b for a, b in zip(found, units, strict=True)):
            return found
    return tuple(units)
