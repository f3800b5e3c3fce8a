"""Multipliers: one pass backward over the steps, with a rule for each, and what each of them misses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from proxygrad.attribution.choice import RuleName, chosen
from proxygrad.attribution.parts import Pair, Parts, Products
from proxygrad.attribution.recording.adjoints import Adjoints
from proxygrad.attribution.recording.steps import Operand, Step
from proxygrad.attribution.rules import elementwise, quotients
from proxygrad.attribution.rules.functions import function_of
from proxygrad.attribution.rules.midpoint import gradient, midpoint
from proxygrad.attribution.rules.table import rule_of
from proxygrad.errors import InvalidRequest


@dataclass
class Account:
    """By operation and layer, what its multipliers stand for before it less that behind it.

    ``rows``: of the batch. Rows count apart wherever a step has them first, so that what one misses does not
    make up for another. ``unruled``: operations that have no rule, and went by their gradient.
    """

    rows: int
    missed: dict[tuple[str, str], float] = field(default_factory=dict)
    unruled: set[tuple[str, str]] = field(default_factory=set)

    def note(self, step: Step, before: Products, after: Products) -> None:
        """Add what a step misses: ``after`` has what it handed on, ``before`` what it was given."""
        apart = all(delta.ndim and delta.shape[0] == self.rows for delta, _ in (*before, *after))
        rows = self.rows if apart else 1
        missed = _summed(after, rows) - _summed(before, rows)
        key = step.name, step.layer[-1] if step.layer else ""
        self.missed[key] = self.missed.get(key, 0.0) + float(missed.abs().sum())


def _summed(products: Products, rows: int) -> Tensor:
    sums = torch.zeros(rows, dtype=torch.float64)
    for delta, multipliers in products:
        sums = sums + (delta * multipliers).reshape(rows, -1).sum(1, dtype=torch.float64).cpu()
    return sums


@dataclass(frozen=True)
class How:
    """Rules by layer; whether operations without one are refused; whether the input is of whole numbers."""

    rules: Mapping[str, RuleName]
    strict: bool
    tokens: bool


def backward(steps: list[Step], output: Operand, since: int, how: How) -> tuple[Adjoints, Account]:
    """From multipliers of 1 for ``output`` ``(R,)`` back through ``steps``, which are taken off.

    Raises `InvalidRequest` where ``how`` is strict and an operation has no rule.
    """
    adjoints, account = Adjoints(), Account(len(output.x))
    parts = Parts(steps, since, adjoints)
    adjoints.add(output.place, torch.ones_like(output.x))
    while len(steps) > since:
        step = steps.pop()  # and its numbers, where no step before it needs them
        given = [None if each is None else adjoints.take(each.place) for each in step.outs]
        if (pair := parts.take(step)) is not None:  # after `take`: it may read where it wrote
            account.note(step, *parts.hand_on(step, pair))
        if any(each is not None for each in given):
            _through(step, given, (adjoints, parts, account), how)
    return adjoints, account


def _through(
    step: Step,
    given: list[Tensor | None],
    to: tuple[Adjoints, Parts, Account],
    how: How,
) -> None:
    adjoints, parts, account = to
    rule_name = chosen(how.rules, step.layer)
    pairs = zip(step.outs, given, strict=True)
    before = [(out.delta, each) for out, each in pairs if out and each is not None]
    function, out = function_of(step, parts.writer), step.outs[0]
    if given[0] is not None and out and function and _reveals(function.operand, step, parts, rule_name):
        operand = function.operand
        split = parts.of(operand, step.index)
        up, down = elementwise.reveal(function.at, operand.x0, out, split)
        pair: Pair = (given[0] * up, given[0] * down)
        parts.send(operand, step.index, pair)
        account.note(step, before, list(zip(split, pair, strict=True)))
        return
    rule = gradient if rule_name == "gradient" else rule_of(step, how.tokens)
    if rule is midpoint and (scale := quotients.scale_of(step, parts.writer)) is not None:
        rule = partial(quotients.scaled, scale=scale)
    if rule is None:
        where = step.layer[-1] if step.layer else ""
        if how.strict:
            raise InvalidRequest(
                f"operation {step.name!r} in layer {where!r} has no rule; valid: strict=False, which takes "
                "its gradient and reports what that misses"
            )
        account.unruled.add((step.name, where))
    sent = list((rule or gradient)(step, given))
    for operand, each in sent:
        adjoints.add(operand.place, each)
    account.note(step, before, [(operand.delta, each) for operand, each in sent])


def _reveals(operand: Operand, step: Step, parts: Parts, rule_name: RuleName) -> bool:
    """Whether RevealCancel applies to a function of ``operand``: everywhere, or behind dense layers."""
    out = step.outs[0]
    if not parts.is_there(operand, step.index):
        return False
    if out is None or operand.place.shape != out.place.shape or not out.place.memory.dtype.is_floating_point:
        return False
    if rule_name == "auto":
        return parts.kind(operand, step.index) == "dense"
    return rule_name == "revealcancel"
