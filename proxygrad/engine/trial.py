"""A trial: several starts of one image, of which the best one goes on.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943) with one choice. The first steps tell much
of where a start will end, so most of the budget goes to the start that leads after a few of them. What that
brings, and what other rules did: docs/measurements/search.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxygrad.engine.lane import Lane


class Trial:
    """The lanes of one image while they compete; after ``steps`` steps `choose` drops all but the best.

    ``scores``: of each lane in their order, once the choice is made; that of a failed one is -inf.
    """

    def __init__(self, lanes: Sequence[Lane], steps: int) -> None:
        self.lanes = tuple(lanes)
        self.steps = steps
        self.scores: tuple[float, ...] = ()
        for lane in lanes:
            lane.trial = self

    def choose(self) -> None:
        """Drop lanes that have failed beside others that have not, and, after the last step of the trial, all
        but the one with the highest score: the first of equals."""
        running = [lane for lane in self.lanes if not lane.dropped]
        if len(running) == 1:
            return
        sound = [lane for lane in running if lane.error is None] or running[:1]
        if all(lane.step >= self.steps and lane.curve for lane in sound):
            self.scores = tuple(_score(lane, self.steps) for lane in self.lanes)
            sound = [max(sound, key=lambda lane: self.scores[self.lanes.index(lane)])]
        for lane in running:
            lane.dropped = lane not in sound


def _score(lane: Lane, steps: int) -> float:
    """The activation after the trial; where steps see random views, whose activations are luck as well, the
    mean over the second half of the trial."""
    if lane.error is not None or lane.dropped:
        return float("-inf")
    if not lane.sees_views:
        return max(lane.curve)
    latest = lane.curve[steps // 2 + 1 :] or lane.curve
    return sum(latest) / len(latest)
