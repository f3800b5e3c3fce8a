"""Multipliers: one pass backward over the steps, with a rule for each, and what each of them misses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from proxygrad.attribution.adjoints import Adjoints
from proxygrad.attribution.choice import RuleName, chosen
from proxygrad.attribution.parts import Pair, Parts, total
from proxygrad.attribution.rules import elementwise
from proxygrad.attribution.rules.midpoint import Sent, gradient
from proxygrad.attribution.rules.table import is_elementwise, rule_of
from proxygrad.attribution.steps import Operand, Step
from proxygrad.errors import InvalidRequest


@dataclass
class Account:
    """By operation and layer, the sum that its multipliers stand for before it less that behind it.

    ``unruled``: those that have no rule, and went by their gradient.
    """

    missed: dict[tuple[str, str], float] = field(default_factory=dict)
    unruled: set[tuple[str, str]] = field(default_factory=set)

    def note(self, step: Step, missed: Tensor, ruled: bool = True) -> None:
        """Add what a step missed."""
        key = _key(step)
        self.missed[key] = self.missed.get(key, 0.0) + float(missed)
        if not ruled:
            self.unruled.add(key)


def backward(
    steps: list[Step], output: Operand, since: int, rules: Mapping[str, RuleName], strict: bool
) -> tuple[Adjoints, Account]:
    """From multipliers of 1 for ``output`` back through the steps from index ``since`` on.

    Raises `InvalidRequest` where ``strict`` and an operation has no rule.
    """
    adjoints, account = Adjoints(), Account()
    parts = Parts(steps, adjoints)
    adjoints.add(output.place, torch.ones_like(output.x))
    for step in reversed(steps[since:]):
        if (pair := parts.take(step)) is not None:
            before, after = parts.hand_on(step, pair)
            account.note(step, after - before)
        given = [None if each is None else adjoints.take(each.place) for each in step.outs]
        if any(each is not None for each in given):
            _through(step, given, (adjoints, parts, account), chosen(rules, step.layer), strict)
    return adjoints, account


def _through(
    step: Step,
    given: list[Tensor | None],
    to: tuple[Adjoints, Parts, Account],
    rule_name: RuleName,
    strict: bool,
) -> None:
    adjoints, parts, account = to
    before = sum(
        total(out.delta, each) for out, each in zip(step.outs, given, strict=True) if out and each is not None
    )
    if given[0] is not None and is_elementwise(step) and _reveals(step, parts, rule_name):
        (operand,) = step.varying
        split = parts.of(operand, step.index)
        _, (up, down) = elementwise.reveal(step, *split)
        pair: Pair = (given[0] * up, given[0] * down)
        account.note(step, total(split[0], pair[0]) + total(split[1], pair[1]) - before)
        parts.send(operand, step.index, pair)
        return
    rule = gradient if rule_name == "gradient" else rule_of(step)
    if rule is None and strict:
        where = f" in layer {step.layer[-1]!r}" if step.layer else ""
        raise InvalidRequest(
            f"operation {step.name!r}{where} has no rule; without strict it gets its gradient"
        )
    sent: Sent = list((rule or gradient)(step, given))
    after = torch.zeros((), dtype=torch.float64)
    for operand, each in sent:
        adjoints.add(operand.place, each)
        after = after + total(operand.delta, each)
    account.note(step, after - before, ruled=rule is not None)


def _reveals(step: Step, parts: Parts, rule_name: RuleName) -> bool:
    """Whether RevealCancel applies: everywhere, or behind dense layers."""
    (operand,), out = step.varying, step.outs[0]
    if out is None or operand.place.shape != out.place.shape or not out.place.memory.dtype.is_floating_point:
        return False
    if rule_name == "auto":
        return parts.kind(operand, step.index) == "dense"
    return rule_name == "revealcancel"


def _key(step: Step) -> tuple[str, str]:
    return step.name, step.layer[-1] if step.layer else ""
