"""Adjoints: the multipliers of each number in memory, on the way backward."""

from __future__ import annotations

import torch
from torch import Tensor

from proxygrad.attribution.recording.tape import Memory, Place


class Adjoints:
    """For each memory a row of multipliers, 0 where nothing was added.

    As the steps go by backward, a row belongs to what its memory held at that moment: `take` empties the
    place that a step wrote, `add` sums up for the places that it read.
    """

    def __init__(self) -> None:
        self._rows: dict[Memory, Tensor] = {}

    def add(self, place: Place, multipliers: Tensor) -> None:
        """Add to the numbers of ``place``; ``multipliers`` has its shape."""
        row = self._rows.get(place.memory)
        if row is None:
            dtype = place.memory.dtype if place.memory.dtype.is_floating_point else multipliers.dtype
            row = self._rows[place.memory] = multipliers.new_zeros(place.memory.numel, dtype=dtype)
        spread(row, place, multipliers)

    def take(self, place: Place) -> Tensor | None:
        """The multipliers of ``place``, which are 0 from now on; None where none were added."""
        if (row := self._rows.get(place.memory)) is None:
            return None
        if place.whole:
            return gathered(self._rows.pop(place.memory), place)
        found = gathered(row, place).clone()
        row.as_strided(*place.looks).zero_()
        return found

    def read(self, place: Place) -> Tensor | None:
        """The multipliers of ``place``; None where none were added."""
        row = self._rows.get(place.memory)
        return None if row is None else gathered(row, place).clone()


def gathered(row: Tensor, place: Place) -> Tensor:
    """The numbers of a memory's row as ``place`` sees them."""
    return row.as_strided(*place.looks)


def spread(row: Tensor, place: Place, value: Tensor) -> None:
    """Add ``value``, of the shape of ``place``, to a memory's row; what lies at one number is summed."""
    value = value.to(row.dtype)
    once = [1 if stride == 0 else size for size, stride in zip(place.shape, place.stride, strict=True)]
    value = value.sum_to_size(once) if once != list(place.shape) else value
    if _distinct(once, place.stride):
        row.as_strided(once, place.stride, place.offset).add_(value)
        return
    numbers = torch.arange(place.memory.numel, device=row.device)
    row.index_add_(0, numbers.as_strided(once, place.stride, place.offset).flatten(), value.flatten())


def _distinct(shape: list[int], stride: tuple[int, ...]) -> bool:
    """No two positions lie at the same number, as far as the strides tell."""
    reach = 0
    for size, step in sorted(zip(shape, stride, strict=True), key=lambda each: each[1]):
        if size == 1:
            continue
        if step <= reach:
            return False
        reach += (size - 1) * step
    return True
