"""A group of lanes: images that are optimised together, one forward and one backward a step for all.

A lane is one image being optimised. Lanes of a group share the network, the layer and the image size and
nothing else: each has its own unit, slope, seed, number of steps and fate. Lanes join and leave between
steps, so a short one never waits for a long one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from proxygrad import ascent
from proxygrad.errors import LaneError, NetworkError, ProxyGradError
from proxygrad.images import start_image
from proxygrad.network import Network
from proxygrad.objectives import Objective
from proxygrad.spec import Spec
from proxygrad.surrogate import surrogate


@dataclass(frozen=True)
class GroupKey:
    """What lanes must have in common to be stepped together."""

    network: Network
    layer: str
    size: tuple[int, int]


@dataclass(eq=False)
class Lane:
    """One image on its way up.

    ``curve`` holds the activation before each step and, once ended, after the last one. The image kept is
    the best one that was seen, ``best_image`` ``(C, H, W)``. ``error`` is set when the lane failed.
    """

    spec: Spec
    objective: Objective
    curve: list[float] = field(default_factory=list)
    best_image: Tensor | None = None
    best_activation: float = -math.inf
    has_gradient: bool = True
    error: ProxyGradError | None = None

    @property
    def step(self) -> int:
        """Steps done so far, 0 to ``spec.steps``."""
        return max(0, len(self.curve) - 1)

    @property
    def ended(self) -> bool:
        """It failed, or the image after its last step has been evaluated."""
        return self.error is not None or len(self.curve) > self.spec.steps

    @property
    def rate(self) -> float:
        """Length of the step that follows the latest evaluation; 0 when the lane has ended."""
        return 0.0 if self.ended else ascent.rate(self.spec.step_size, self.step, self.spec.steps)

    @property
    def stuck(self) -> bool:
        """Ascent ran out of gradient and never rose above its start."""
        return not self.has_gradient and self.best_activation <= self.curve[0]

    def note(self, activation: float, steepest: float, image: Tensor) -> None:
        """Record one evaluation: the activation, the largest gradient entry, and the image ``(C, H, W)``."""
        if not (math.isfinite(activation) and math.isfinite(steepest)):
            self.error = LaneError(
                f"unit {self.spec.unit} of layer {self.spec.layer!r}: activation {activation} with largest "
                f"gradient {steepest} at step {len(self.curve)}"
            )
            return
        self.has_gradient = steepest > 0
        self.curve.append(activation)
        if activation > self.best_activation:
            self.best_activation = activation
            self.best_image = image.clone()


class Group:
    """Lanes of one `GroupKey`; `step` advances all of them by one step."""

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.lanes: list[Lane] = []
        channels = key.network.input_shape[0]
        self._images = torch.empty((0, channels, *key.size), device=key.network.device)  # (lanes, C, H, W)

    def join(self, lane: Lane) -> None:
        """Take a lane in, at its start image."""
        image = start_image((self._images.shape[1], *self.key.size), lane.spec.seed)
        self._images = torch.cat([self._images, image.to(self._images).unsqueeze(0)])
        self.lanes.append(lane)

    def leave(self, lane: Lane) -> None:
        """Let a lane go, whether it has ended or not."""
        keep = [index for index, other in enumerate(self.lanes) if other is not lane]
        self.lanes = [self.lanes[index] for index in keep]
        self._images = self._images[keep]

    def step(self) -> list[Lane]:
        """Evaluate every lane and move those with steps left; the ended ones leave and are returned."""
        activations, gradient = self._evaluate()  # (lanes,), (lanes, C, H, W)
        steepest = gradient.abs().amax(dim=(1, 2, 3))
        rows = torch.stack([activations, steepest], dim=1).tolist()  # one transfer a step
        for lane, image, (activation, slope) in zip(self.lanes, self._images, rows, strict=True):
            lane.note(activation, slope, image)
        rates = activations.new_tensor([lane.rate for lane in self.lanes])
        self._images = ascent.normalized_ascent(self._images, gradient, rates)
        ended = [lane for lane in self.lanes if lane.ended]
        for lane in ended:
            self.leave(lane)
        return ended

    def _evaluate(self) -> tuple[Tensor, Tensor]:
        images = self._images.detach().requires_grad_()  # (lanes, C, H, W)
        with surrogate(self._slopes()):
            activation = self.key.network.activations(images, self.key.layer)  # (lanes, units, …)
        each = [
            lane.objective({self.key.layer: activation[index : index + 1]})
            for index, lane in enumerate(self.lanes)
        ]
        values = torch.cat(each)  # (lanes,)
        if not values.requires_grad:
            raise NetworkError(f"layer {self.key.layer!r} does not depend on the image")
        (gradient,) = torch.autograd.grad(values.sum(), images)
        return values.detach(), gradient

    def _slopes(self) -> float | Tensor:
        slopes = [lane.spec.slope for lane in self.lanes]
        return slopes[0] if len(set(slopes)) == 1 else torch.tensor(slopes, device=self._images.device)
