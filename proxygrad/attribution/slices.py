"""An attribution under way: computed in slices and summed up, so that others may have their turn in between.

Its *rows* are the pairs of an input and one of its references, and of integrated gradients each point on the
way between them. They do not depend on each other; a slice is as many as run at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from proxygrad.attribution.choice import RuleName
from proxygrad.attribution.deeplift import deeplift
from proxygrad.attribution.gradients import METHODS
from proxygrad.attribution.multipliers import Account
from proxygrad.attribution.result import Attribution, Delta, Missed
from proxygrad.attribution.target import Target
from proxygrad.engine.capacity import DEFAULT_MAX_LANES, Capacity, out_of_memory, release
from proxygrad.errors import NetworkError, OutOfMemory
from proxygrad.networks.ambient import differentiable


@dataclass(frozen=True)
class Procedure:
    """How rows are computed. ``points``: on the way of each pair, 1 but for integrated gradients.

    ``max_rows``: most rows of a slice; None: by memory. ``each``: keep the multipliers of each reference.
    """

    method: str
    rules: Mapping[str, RuleName]
    at: str | None
    strict: bool
    points: int
    max_rows: int | None
    each: bool


class _Slice(NamedTuple):
    """Of rows: contributions and multipliers ``(R, *S)``. Of the pairs that begin in it: values ``(P,)`` of
    input and reference."""

    contributions: Tensor
    multipliers: Tensor
    value: Tensor
    reference_value: Tensor
    account: Account


class SlicedAttribution:
    """An attribution of which ``step`` of ``steps`` rows are done. Any thread may call it, one at a time.

    ``target``: with an objective for each input. ``inputs``: ``(N, *S)``. ``references``: ``(N, k, *S)``.
    """

    def __init__(self, target: Target, inputs: Tensor, references: Tensor, procedure: Procedure) -> None:
        self._target = target
        self._inputs = inputs
        self._references = references
        self._how = procedure
        self._capacity = Capacity(inputs.device)
        self._sums: _Sums | None = None
        self._values = list[Tensor]()
        self._reference_values = list[Tensor]()
        self._accounts = list[Account]()
        self.step = 0
        self.steps = len(inputs) * references.shape[1] * procedure.points

    @differentiable()  # whatever the caller's modes are
    def advance(self) -> None:
        """Compute the next slice, halved until it fits in memory.

        Raises what the network raises, `InvalidRequest`, and `OutOfMemory` where not even one row fits.
        """
        capacity, device, found = self._capacity, self._inputs.device, None
        while found is None:
            most = self._how.max_rows or capacity.lanes(DEFAULT_MAX_LANES)
            rows = range(self.step, min(self.step + min(most, capacity.limit or most), self.steps))
            try:
                with capacity.watched(len(rows)):
                    found = self._computed(rows)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise OutOfMemory(f"not even one pair of input and reference fits on {device}") from error
                capacity.halve(len(rows))
            if found is None:
                release(device)
        capacity.passed(len(rows))
        self._add(rows, found)
        self.step = rows.stop

    def _computed(self, rows: range) -> _Slice:
        how, count = self._how, self._references.shape[1]
        pairs = [row // how.points for row in rows]
        inputs, references = ([each // count for each in pairs], [each % count for each in pairs])
        x, x0 = self._inputs[inputs], self._references[inputs, references]
        target = self._target.of_rows(inputs)
        if how.method == "deeplift":
            found = deeplift(target, x, x0, how.rules, how.at, how.strict)
            contributions = found.multipliers * found.difference
            return _Slice(contributions, found.multipliers, found.value, found.reference_value, found.account)
        path = torch.tensor([(row % how.points + 0.5) / how.points for row in rows], dtype=torch.float64)
        contributions, multipliers = METHODS[how.method](target, x, x0, path.to(x))
        first = [number for number, row in enumerate(rows) if row % how.points == 0]
        value = reference_value = x.new_empty(0)
        if first:
            with torch.no_grad():
                begun = target.of_rows(first)
                value, reference_value = begun(x[first]), begun(x0[first])
        return _Slice(contributions, multipliers, value, reference_value, Account(len(rows)))

    def _add(self, rows: range, found: _Slice) -> None:
        n, k = self._references.shape[:2]
        if self._sums is None:
            self._sums = _Sums(n, k, found.contributions, self._how.each)
        for number, row in enumerate(rows):
            pair = row // self._how.points
            self._sums.add(pair // k, pair % k, found.contributions[number], found.multipliers[number])
        self._values.append(found.value)
        self._reference_values.append(found.reference_value)
        self._accounts.append(found.account)

    @differentiable()
    def result(self) -> Attribution:
        """What came of all rows. Raises `NetworkError` for numbers that are not finite."""
        n, k = self._references.shape[:2]
        assert self._sums is not None
        assert self.step == self.steps
        value = torch.cat(self._values).view(n, k)
        before = torch.cat(self._reference_values).view(n, k)
        for row, each in enumerate(value[:, 0].tolist()):
            if not math.isfinite(each):
                raise NetworkError(f"the objective of input {row} is {each}")
        sums, rows = self._sums, self.steps // n
        finite = sums.contributions.flatten(1).isfinite().all(1)
        if not bool(finite.all()):
            row = int(finite.long().argmin())
            raise NetworkError(f"the contributions of input {row} are not finite: its numbers are too large")
        difference = (value.double() - before.double()).mean(1)
        absolute = sums.total / rows - difference
        operations, unruled = _missed(self._accounts, float((value.double() - before.double()).abs().sum()))
        return Attribution(
            (sums.contributions / rows).to(sums.dtype),
            (sums.multipliers / rows).to(sums.dtype),
            value[:, 0],
            before.mean(1),
            Delta(absolute, (absolute / difference).abs().where(difference != 0, math.nan), operations),
            unruled,
            references=self._references,
            each_multipliers=(sums.each / self._how.points),
            method=self._how.method,
        )


class _Sums:
    """Over rows, in float64: of contributions and multipliers ``(N, *S)``; ``total`` ``(N,)`` of the former.

    ``each``: ``(N, k, *S)``, multipliers by reference; ``(N, 0, *S)`` where they are not kept.
    """

    def __init__(self, n: int, k: int, like: Tensor, each: bool) -> None:
        shape = like.shape[1:]
        self.dtype = like.dtype
        self.contributions = like.new_zeros((n, *shape), dtype=torch.float64)
        self.multipliers = torch.zeros_like(self.contributions)
        self.total = like.new_zeros(n, dtype=torch.float64)
        self.each = like.new_zeros((n, k if each else 0, *shape))

    def add(self, n: int, k: int, contributions: Tensor, multipliers: Tensor) -> None:
        """Add a row, in order: sums do not depend on how rows were sliced."""
        self.contributions[n] += contributions
        self.multipliers[n] += multipliers
        self.total[n] += contributions.sum(dtype=torch.float64)
        if self.each.shape[1]:
            self.each[n, k] += multipliers


def _missed(accounts: list[Account], scale: float) -> tuple[tuple[Missed, ...], tuple[Missed, ...]]:
    """By operation and layer, the largest first; and those of them without a rule."""
    sums: dict[tuple[str, str], float] = {}
    for account in accounts:
        for key, missed in account.missed.items():
            sums[key] = sums.get(key, 0.0) + missed
    without = {key for account in accounts for key in account.unruled}
    order = sorted(sums, key=lambda key: -abs(sums[key]))
    found = {key: Missed(*key, sums[key], abs(sums[key]) / scale if scale else math.nan) for key in order}
    return tuple(found.values()), tuple(each for key, each in found.items() if key in without)
