"""A render request: one submitted `Spec` inside the engine, from submission to its rendering.

Its lanes begin, step and end together, in one group. The images of the request come first, with seeds from
its own on; then, to compare, those of plain activation maximization with the same seeds. Lanes that are
pushed away from each other are a diversity group among their own kind: that the plain ones may differ too is
what makes the comparison one of the slope alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.group import GroupKey
from proxygrad.engine.lane import DiversityGroup, Lane, LaneState, Trial, falls
from proxygrad.engine.rendering import Rendering
from proxygrad.errors import ChainDiverged, DeadlineExceeded, ProxyGradError, RenderCanceled
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.objectives.units import UNIT_OBJECTIVES
from proxygrad.precision import Precision
from proxygrad.spec import Role, Spec

#: The pace is the mean of this many steps.
PACE_STEPS = 8


@dataclass(frozen=True)
class RenderProgress:
    """Steps done, steps in all, and the latest activation, which is None before the first step.

    Of several images the highest; those of plain activation maximization do not count.
    """

    step: int
    steps: int
    activation: float | None


class RenderRequest:
    """One request in the engine: its lanes, its deadline, its progress and its outcome.

    ``spec`` is resolved; ``deadline_s`` counts from now; ``checkpoint`` is of the same request. The engine's
    thread alone calls `prepare`, `start`, `follow`, `deliver_checkpoint` and `resolve`; all else may be
    called by any thread.

    ``image``: the image of the leading lane, ``(C, H, W)``, not written to any more; None before the first
    step.
    """

    def __init__(
        self,
        network: Network,
        spec: Spec,
        deadline_s: float | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.network = network
        self.spec = spec
        self._lanes: tuple[tuple[Lane, Role], ...] = ()
        self.progress = RenderProgress(checkpoint.step if checkpoint else 0, spec.steps, None)
        self.image: Tensor | None = None
        self.outcome: Future[Rendering] = Future()
        self._checkpoint = checkpoint
        self._key: GroupKey | None = None
        self._submitted_at = time.monotonic()
        self._deadline: float | None = None
        self.extend_deadline(deadline_s)
        self._canceled = threading.Event()
        self._started_at: float | None = None
        self._times: deque[float] = deque(maxlen=PACE_STEPS + 1)
        self._pace: tuple[float, float] | None = None  # seconds a step, and since when
        self._lock = threading.Lock()
        self._checkpoint_wish: Future[Checkpoint | None] | None = None

    def cancel(self) -> None:
        """Stop before the next step."""
        self._canceled.set()

    def extend_deadline(self, seconds_from_now: float | None) -> None:
        """Move the deadline, back or forth; None takes it away. Raises `ValueError` for NaN."""
        if seconds_from_now is not None and math.isnan(seconds_from_now):
            raise ValueError(f"deadline_s {seconds_from_now} is not a number of seconds")
        self._deadline = None if seconds_from_now is None else time.monotonic() + seconds_from_now

    @property
    def stop_error(self) -> ProxyGradError | None:
        """`RenderCanceled` or `DeadlineExceeded` if the lanes must end before their next step; else None."""
        step, deadline = self.progress.step, self._deadline
        if self._canceled.is_set():
            return RenderCanceled(f"canceled {f'after step {step}' if step else 'before its first step'}")
        if deadline is not None and time.monotonic() >= deadline:
            return DeadlineExceeded(step, self.spec.steps, deadline - self._submitted_at)
        return None

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the last step at the pace of the latest ones; None before two steps, 0 once ended."""
        if self.outcome.done():
            return 0.0
        pace, progress = self._pace, self.progress
        if pace is None:
            return None
        seconds_per_step, since = pace
        return max(0.0, (progress.steps - progress.step) * seconds_per_step - (time.monotonic() - since))

    @property
    def ran_s(self) -> float:
        """Seconds since the first step, those before the checkpoint included; 0 before it."""
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at

    def prepare(self, precision: Precision) -> GroupKey:
        """Make the lanes, once, and return the group that they fit in. Raises `InvalidRequest` errors."""
        if self._key is None:
            network, spec = self.network, self.spec
            _, height, width = network.input_shape
            size = (spec.size_px, spec.size_px) if spec.size_px else (height, width)
            lanes = _lanes(network, spec, size)
            self._key = GroupKey.of(network, lanes[0][0], size, precision)
            if self._checkpoint:
                self._checkpoint.drop([lane for lane, _ in lanes])
            self._lanes = lanes
        return self._key

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Those that were not dropped, in the order of `Result.images`; empty before `prepare`."""
        return tuple(lane for _, lane in self.numbered_lanes)

    @property
    def numbered_lanes(self) -> tuple[tuple[int, Lane], ...]:
        """The same, each with its number among all that there were at first."""
        return tuple((number, lane) for number, (lane, _) in enumerate(self._lanes) if not lane.dropped)

    @property
    def states(self) -> tuple[LaneState | None, ...]:
        """Where each lane begins: at its state in the checkpoint, or None without one."""
        return tuple(self._checkpoint.states.values()) if self._checkpoint else (None,) * len(self.lanes)

    def start(self) -> None:
        """The lanes have joined their group."""
        carried_s = self._checkpoint.ran_s if self._checkpoint else 0.0
        with self._lock:
            self._started_at = time.monotonic() - carried_s

    def follow(self) -> None:
        """A step has been made: renew pace, progress and image."""
        lane = self.leading
        self._times.append(time.monotonic())
        if len(self._times) > 2:  # the first of them only evaluated the start
            since = self._times[-1]
            self._pace = (since - self._times[0]) / (len(self._times) - 1), since
        self.progress = RenderProgress(lane.step, lane.settings.steps, lane.curve[-1] if lane.curve else None)
        self.image = lane.image

    @property
    def leading(self) -> Lane:
        """The lane with the highest latest activation, those of plain activation maximization left out."""
        own = [lane for lane, role in self._lanes if role == "proxygrad" and not lane.dropped]
        return max(own, key=lambda lane: lane.curve[-1] if lane.curve else float("-inf"))

    @property
    def lane_error(self) -> ProxyGradError | None:
        """The error of the first lane that has failed, with the number of its image; None without one."""
        kept = [(lane, role) for lane, role in self._lanes if not lane.dropped]
        for number, (lane, role) in enumerate(kept):
            if lane.error is None:
                continue
            if isinstance(lane.error, ChainDiverged):
                which = f"chain {number} of {len(kept)} (seed {lane.settings.seed})"
                return ChainDiverged(lane.error.step, lane.error.reason, which)
            if len(kept) == 1:
                return lane.error
            which = f"image {number} of {len(kept)} ({role}, seed {lane.settings.seed})"
            named = type(lane.error)(f"{which}: {lane.error}")
            named.__cause__ = lane.error.__cause__
            return named
        return None

    def wish_checkpoint(self) -> Future[Checkpoint | None]:
        """Ask for a checkpoint after the next step. The future holds it, or None once the lanes have ended;
        before the first step, at once, the checkpoint that the request was submitted with, or None.
        """
        with self._lock:
            if not self.outcome.done() and self._started_at is not None:
                self._checkpoint_wish = self._checkpoint_wish or Future()
                return self._checkpoint_wish
            ready: Future[Checkpoint | None] = Future()
            ready.set_result(None if self.outcome.done() else self._checkpoint)
            return ready

    @property
    def wants_checkpoint(self) -> bool:
        """Whether somebody waits for a checkpoint."""
        return self._checkpoint_wish is not None

    def deliver_checkpoint(self, checkpoint: Checkpoint | None) -> None:
        """Answer everybody who waits for a checkpoint; None: there is none."""
        with self._lock:
            wish, self._checkpoint_wish = self._checkpoint_wish, None
        if wish is not None:
            wish.set_result(checkpoint)

    def resolve(self, outcome: Rendering | Exception) -> None:
        """End the request; the first outcome counts."""
        with suppress(InvalidStateError):
            if isinstance(outcome, Rendering):
                self.outcome.set_result(outcome)
            else:
                self.outcome.set_exception(outcome)
        self.deliver_checkpoint(None)


def requested_objective(spec: Spec) -> Objective:
    """The objective of a resolved `Spec`; raises `ValueError` for one that names none."""
    if spec.objective is None:
        raise ValueError("the request is not resolved: it has no objective")
    position = {} if spec.position is None else {"position": spec.position}
    return UNIT_OBJECTIVES[spec.objective](layer=spec.layer, unit=spec.unit, **position)


def _lanes(network: Network, spec: Spec, size: tuple[int, int]) -> tuple[tuple[Lane, Role], ...]:
    """The lanes of a resolved request, for images of ``size`` (height, width), each with its role."""
    objective = requested_objective(spec).at({spec.layer: network.layer_shape(spec.layer, size)})
    kinds: list[tuple[Spec, Role]] = [(spec, "proxygrad")]
    if spec.compare:
        kinds.append((spec.baseline(), "baseline"))
    return tuple((lane, role) for each, role in kinds for lane in _of_one_kind(network, each, objective))


def _of_one_kind(network: Network, spec: Spec, objective: Objective) -> Iterator[Lane]:
    """Those of each image follow each other, with seeds that do so, too."""
    group = DiversityGroup(spec.diversity) if spec.diversity > 0 else None
    count = spec.lanes if spec.sampler == "langevin" else spec.images
    falling = falls(network, objective)
    for image in range(count):
        seeds = range(spec.seed + image * spec.starts, spec.seed + (image + 1) * spec.starts)
        own = [spec.model_copy(update={"seed": seed}) for seed in seeds]
        lanes = [Lane(each, objective, diversity_group=group, falls=falling) for each in own]
        if spec.trial_steps is not None:
            Trial(lanes, spec.trial_steps)
        yield from lanes
