"""A lane: one image being optimized, with its settings, its progress and how it ended."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from proxygrad.errors import ChainDiverged, CheckpointMismatch, LaneError, ProxyGradError
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.optim.update_rules import UpdateRule, rate
from proxygrad.parameterizations import Parameterization
from proxygrad.precision import Arithmetic
from proxygrad.spec.langevin import LangevinSettings
from proxygrad.spec.robustness import resolved
from proxygrad.spec.settings import AUTO_SLOPE, AscentSettings
from proxygrad.transforms import Draw, Transform, draw, draw_own

_UNMOVED = Draw(None, None)
#: A gradient has faded when its largest entry is below this part of the largest that the lane has met
#: (measured in docs/measurements/activations.md).
FADED = 0.01
#: Activations that are below 0, and fall, before they rise.
FALLING = frozenset({"gelu", "silu", "mish", "hardswish"})


@dataclass(frozen=True, eq=False)
class DiversityGroup:
    """Lanes that are pushed away from each other; ``weight`` is that of the push beside the activation."""

    weight: float


@dataclass(frozen=True, eq=False)
class MethodOverrides:
    """Parts of the method that a caller brings, each in place of the one that the settings name.

    Lanes can be stepped as one batch only if they share one instance. ``parameterization`` is made for the
    image's shape and the network's device.
    """

    parameterization: Parameterization | None = None
    update_rule: UpdateRule | None = None
    transform: Transform | None = None


#: Every part as the settings have it.
NO_OVERRIDES = MethodOverrides()


@dataclass(frozen=True, eq=False)
class LaneState:
    """Everything that a lane's next steps depend on, besides its settings; on the CPU, shared with nothing.

    ``params``: ``P``; ``rule``: what the update rule keeps, each ``P``; ``generator``: the state of the
    lane's generator, uint8; ``image``: ``(C, H, W)``, or None before the first evaluation; ``samples``: those
    of a chain so far, ``(samples, C, H, W)``, or None; ``silent_at``: of `Lane`; ``trial``: of a lane that
    won its `Trial`, the scores of all that took part.
    """

    params: Tensor
    rule: Mapping[str, Tensor]
    generator: Tensor
    curve: tuple[float, ...]
    steepest: float
    steepest_ever: float
    image: Tensor | None
    samples: Tensor | None = None
    silent_at: float | None = None
    trial: tuple[float, ...] = ()

    def check(self, params: Sequence[int], rule: Collection[str], image: Sequence[int]) -> None:
        """Raises `CheckpointMismatch` unless parameters, names of the rule and image have these shapes."""
        tensors = {"params": self.params, **{f"rule.{name}": value for name, value in self.rule.items()}}
        expected = {"params": tuple(params), **{f"rule.{name}": tuple(params) for name in rule}}
        if self.image is not None:
            tensors["image"], expected["image"] = self.image, tuple(image)
        if self.samples is not None:
            tensors["samples"], expected["samples"] = self.samples, (len(self.samples), *image)
        held = {name: tuple(value.shape) for name, value in tensors.items()}
        if held != expected:
            raise CheckpointMismatch(f"the checkpoint holds {held}; this request needs {expected}")


@dataclass(eq=False)
class Lane:
    """One image being optimized.

    ``settings`` are completed; ``start`` is an image ``(C, H, W)`` in [0, 1], or None for a random one of the
    seed. ``curve`` holds the activation before each step and, once ended, after the last one. ``image``
    ``(C, H, W)`` is the best that was seen, or the latest where steps see transformed images: their
    activations are of the view, so the highest is luck. The first and the last evaluation always see the
    image itself. ``steepest`` is the largest entry of the activation's gradient at the latest evaluation,
    ``steepest_ever`` the largest at any. ``samples``: of a Langevin chain the kept states, ``(C, H, W)``
    each; its ``image`` is the latest state. ``error`` is set when the lane failed. ``silent_at``: with slope
    "auto", the activation above which the lane has to rise before the slope is 0 again. ``trial``: the starts
    that it competes with; ``dropped``: another one was chosen. ``guarded``: of
    `proxygrad.backward.surrogate.surrogate`, from the first evaluation on that needed it. ``falls``:
    of the function `falls`.
    """

    settings: AscentSettings
    objective: Objective
    start: Tensor | None = None
    diversity_group: DiversityGroup | None = None
    overrides: MethodOverrides = NO_OVERRIDES
    curve: list[float] = field(default_factory=list)
    image: Tensor | None = None
    steepest: float = 0.0
    steepest_ever: float = 0.0
    error: ProxyGradError | None = None
    dtype: Arithmetic = "float32"
    samples: list[Tensor] = field(default_factory=list)
    silent_at: float | None = None
    trial: Trial | None = None
    dropped: bool = False
    guarded: bool = False
    falls: bool = False

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.settings.seed)
        self._robustness = resolved(self.settings.robustness)
        self._view: Draw | None = None

    @property
    def step(self) -> int:
        """Steps done so far, 0 to ``settings.steps``."""
        return max(0, len(self.curve) - 1)

    @property
    def ended(self) -> bool:
        """It failed, or the image after its last step has been evaluated."""
        return self.error is not None or len(self.curve) > self.settings.steps

    @property
    def rate(self) -> float:
        """Length of the step that follows the latest evaluation; 0 when the lane has ended.

        It falls to 0 during a trial, and then again from the step size on.
        """
        settings, trial = self.settings, self.settings.trial_steps or 0
        if self.ended:
            return 0.0
        if self.step < trial:
            return rate(settings.step_size, self.step, trial)
        return rate(settings.step_size, self.step - trial, settings.steps - trial)

    @property
    def slope(self) -> float:
        """Of the rectifiers in the evaluation to come.

        "auto": `AUTO_SLOPE` from where the gradient was zero until the activation has risen, else 0. A
        number: from ``slope`` to ``slope_end`` over the steps, linearly between the shares ``slope_hold`` and
        ``slope_end_at`` of them.
        """
        settings = self.settings
        if settings.slope == "auto":
            return 0.0 if self.silent_at is None else AUTO_SLOPE
        if settings.slope_end is None or settings.steps == 1:
            return settings.slope
        done = min(1.0, len(self.curve) / (settings.steps - 1))
        passed = (done - settings.slope_hold) / (settings.slope_end_at - settings.slope_hold)
        return settings.slope + min(1.0, max(0.0, passed)) * (settings.slope_end - settings.slope)

    @property
    def finished_image(self) -> Tensor:
        """The image of a lane that has ended, ``(C, H, W)``. Raises the lane's error."""
        if self.error is not None:
            raise self.error
        if self.image is None:
            raise LaneError(f"{self.objective}: no image was evaluated")
        return self.image

    def begin(self, parameterization: Parameterization, device: torch.device) -> Tensor:
        """Parameters of the first image, ``(1, *P)``: of ``start``, or drawn, once, from the generator."""
        if self.start is None:
            params = parameterization.start(self.generator, self.settings.start_noise)
            return params.to(device, torch.float32).unsqueeze(0)
        return parameterization.encode(self.start.to(device, torch.float32).unsqueeze(0))

    def view(self, size: tuple[int, int], channels: int) -> Draw:
        """How the evaluation to come sees the image: transformed, but for the first and the last.

        Drawn once for each evaluation: until `note` has recorded it, a second call returns the same.
        """
        if len(self.curve) in (0, self.settings.steps):
            return _UNMOVED
        if self._view is None:
            own = self.overrides.transform
            self._view = (
                draw(self._robustness, size, channels, self.generator)
                if own is None
                else draw_own(own, self.generator)
            )
        return self._view

    def note(self, activation: float, steepest: float, image: Tensor) -> None:
        """Record one evaluation: the activation, the largest gradient entry, and the image ``(C, H, W)``.

        ``image`` may be a row of a larger tensor that is not written to any more.
        """
        self._view = None
        if not (math.isfinite(activation) and math.isfinite(steepest)):
            found = f"activation {activation} with largest gradient {steepest}"
            if self.langevin is not None:
                self.diverge(len(self.curve), f"{found}; valid: a smaller step_size or beta of langevin")
                return
            self.error = LaneError(f"{self.objective}: {found} at step {len(self.curve)}{self._cause}")
            return
        best = not self.curve or activation > max(self.curve)
        self.steepest, self.steepest_ever = steepest, max(steepest, self.steepest_ever)
        self._listen(activation, steepest)
        self.curve.append(activation)
        if (langevin := self.langevin) is not None:
            self.image = image.clone() if self.ended else image
            if langevin.keeps(self.step):
                self.samples.append(image.clone())
        elif self.sees_views:
            self.image = image.clone() if self.ended else image
        elif best:
            self.image = image.clone()

    def _listen(self, activation: float, steepest: float) -> None:
        """Whether the unit is silent: its own gradient is zero; or it has faded at or below 0, as that of a
        GELU does, whose activation then has to come out above 0.
        """
        if self.silent_at is not None:
            if activation > self.silent_at:
                self.silent_at = None
        elif self.falls and activation <= 0 and steepest <= FADED * self.steepest_ever:
            self.silent_at = 0.0
        elif steepest == 0:
            self.silent_at = activation

    @property
    def sees_views(self) -> bool:
        """Whether steps see transformed images."""
        return self._robustness is not None or self.overrides.transform is not None

    @property
    def langevin(self) -> LangevinSettings | None:
        """Of a chain; None of an ascent."""
        return self.settings.langevin

    def diverge(self, step: int, reason: str) -> None:
        """End a chain that has left what it can sample."""
        self.error = ChainDiverged(step, f"{self.objective}: {reason}")

    @property
    def _cause(self) -> str:
        """What may have made numbers that are not finite."""
        if self.settings.proxy != "network" or not self.slope:
            return ""
        return "; proxy 'network' passes values below 0 on to what follows a rectifier, 'surrogate' does not"

    def state(self, params: Tensor, rule: Mapping[str, Tensor]) -> LaneState:
        """The state to resume from; ``params`` ``P`` and ``rule`` are this lane's rows, copied."""
        return LaneState(
            params=_copied(params),
            rule={name: _copied(value) for name, value in rule.items()},
            generator=self.generator.get_state(),
            curve=tuple(self.curve),
            steepest=self.steepest,
            steepest_ever=self.steepest_ever,
            image=None if self.image is None else _copied(self.image),
            samples=_copied(torch.stack(self.samples)) if self.samples else None,
            silent_at=self.silent_at,
            trial=self.trial.scores if self.trial else (),
        )

    def resume(self, state: LaneState, device: torch.device) -> None:
        """Continue from ``state``, which was taken of a lane of the same request."""
        self.generator.set_state(state.generator)
        self.curve = list(state.curve)
        self.steepest, self.steepest_ever = state.steepest, state.steepest_ever
        self.image = None if state.image is None else state.image.to(device)
        self.samples = [] if state.samples is None else list(state.samples.to(device))
        self.silent_at = state.silent_at


def falls(network: Network, objective: Objective) -> bool:
    """Whether an activation that falls somewhere made what ``objective`` reads."""
    layers = [network.layer(name) for name in objective.layers]
    return any(each.stage == "post_activation" and each.activation in FALLING for each in layers)


class Trial:
    """The lanes of one image while they compete; after ``steps`` steps `choose` drops all but the best.

    Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943) with one choice. The first steps tell
    much of where a start will end, so most of the budget goes to the start that leads after a few of them.
    What that brings, and what other rules did: docs/measurements/search.md.

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
        if self.scores:
            return
        running = [lane for lane in self.lanes if not lane.dropped]
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


def _copied(values: Tensor) -> Tensor:
    return values.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
