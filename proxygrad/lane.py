"""A lane: one image on its way up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from proxygrad import ascent
from proxygrad.errors import LaneError, ProxyGradError
from proxygrad.objectives import Objective
from proxygrad.settings import Settings
from proxygrad.transforms import ROBUSTNESS, Draw, draw

_UNMOVED = Draw(None, None)


@dataclass(frozen=True, eq=False)
class Family:
    """Lanes that shall differ from each other; ``diversity`` is the weight of that beside the activation."""

    diversity: float


@dataclass(eq=False)
class Lane:
    """One image being optimised: what is asked of it, what has been seen, and how it ended.

    ``settings`` are completed; ``start`` is an image ``(C, H, W)`` in [0, 1], or None for a random one of
    the seed. ``curve`` holds the activation before each step and, once ended, after the last one. ``image``
    ``(C, H, W)`` is the best that was seen, or the latest where steps see moved images: their activations
    are of the view, so the highest is luck. The first and the last evaluation always see the image itself.
    ``error`` is set when the lane failed.
    """

    settings: Settings
    objective: Objective
    start: Tensor | None = None
    family: Family | None = None
    curve: list[float] = field(default_factory=list)
    image: Tensor | None = None
    has_gradient: bool = True
    error: ProxyGradError | None = None

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.settings.seed)

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
        """Length of the step that follows the latest evaluation; 0 when the lane has ended."""
        return 0.0 if self.ended else ascent.rate(self.settings.step_size, self.step, self.settings.steps)

    @property
    def slope(self) -> float:
        """Of the rectifiers in the evaluation to come: from ``slope`` to ``slope_end`` over the steps."""
        begin, end = self.settings.slope, self.settings.slope_end
        if end is None or self.settings.steps == 1:
            return begin
        passed = min(1.0, len(self.curve) / (self.settings.steps - 1))
        return begin + passed * (end - begin)

    @property
    def stuck(self) -> bool:
        """Ascent ran out of gradient and never rose above its start."""
        return not self.has_gradient and max(self.curve) <= self.curve[0]

    def view(self, size: tuple[int, int], channels: int) -> Draw:
        """How the evaluation to come sees the image: moved, but for the first and the last."""
        if len(self.curve) in (0, self.settings.steps):
            return _UNMOVED
        return draw(ROBUSTNESS[self.settings.robustness], size, channels, self.generator)

    def note(self, activation: float, steepest: float, image: Tensor) -> None:
        """Record one evaluation: the activation, the largest gradient entry, and the image ``(C, H, W)``."""
        if not (math.isfinite(activation) and math.isfinite(steepest)):
            self.error = LaneError(
                f"{self.objective}: activation {activation} with largest gradient {steepest} "
                f"at step {len(self.curve)}"
            )
            return
        best = not self.curve or activation > max(self.curve)
        self.has_gradient = steepest > 0
        self.curve.append(activation)
        if self.settings.robustness == "none":
            self.image = image.clone() if best else self.image
        elif self.ended:
            self.image = image.clone()
