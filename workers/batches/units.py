"""Unit selections of a batch: all units of a layer, a range, or a list; and the numbers that they mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from proxygrad.errors import UnitOutOfRange
from proxygrad.spec import LayerInfo

#: Beyond any layer, and within what every reader of JSON takes as a whole number.
_BEYOND = 2**31

UnitNumber = Annotated[int, Field(ge=0, lt=_BEYOND)]


class UnitRange(BaseModel):
    """Units from ``start`` up to, and without, ``stop``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: UnitNumber = Field(default=0, description="First unit.")
    stop: Annotated[int, Field(ge=1, le=_BEYOND)] | None = Field(
        default=None, description="One beyond the last unit, at most; `null`: the end of the layer."
    )
    step: Annotated[int, Field(ge=1, le=_BEYOND)] = Field(
        default=1, description="From one unit to the next; 2: every other one."
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.stop is not None and self.start >= self.stop:
            raise ValueError(f"the range is empty: start {self.start} is not below stop {self.stop}")
        return self


def _each_once(units: list[int]) -> list[int]:
    seen: set[int] = set()
    for unit in units:
        if unit in seen:
            raise ValueError(f"unit {unit} is listed twice")
        seen.add(unit)
    return units


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "all" if value == "all" else None
    if isinstance(value, list | tuple):
        return "list"
    return "range" if isinstance(value, dict | UnitRange) else None


#: The units of a batch as a request names them.
UnitSelection = Annotated[
    Annotated[Literal["all"], Tag("all")]
    | Annotated[list[UnitNumber], Field(min_length=1), AfterValidator(_each_once), Tag("list")]
    | Annotated[UnitRange, Tag("range")],
    Discriminator(
        _kind,
        custom_error_type="units_form",
        custom_error_message="should be 'all', a list of units, or a range with start, stop and step",
    ),
]


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
