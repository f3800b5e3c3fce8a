"""A group of lanes: images that are optimised together, one forward and one backward pass a step for all.

Lanes of a group share what `GroupKey` names and nothing else: each has its own objective, slope, seed, views,
penalties, number of steps and fate. They join and leave between steps, so a short one never waits for a
long one. Each lane's state is one row of the group's tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxygrad.ascent import UpdateRule, new_state, normalize, update_rule
from proxygrad.diversity import push_apart
from proxygrad.errors import NetworkError
from proxygrad.lane import Lane
from proxygrad.network import Network
from proxygrad.parameterizations import Parameterization, parameterization
from proxygrad.regularizers import blur, penalize
from proxygrad.settings import GafName, ParameterizationName, Proxy, UpdateName
from proxygrad.surrogate import surrogate
from proxygrad.transforms import apply


@dataclass(frozen=True)
class GroupKey:
    """What lanes must have in common to be stepped together. ``size``: height and width in pixels.

    ``alone`` names the one lane of a group that takes no other: rectifiers tell lanes apart by the first
    dimension, which is not the batch in every network (`Network.batch_first`).
    """

    network: Network
    layers: tuple[str, ...]
    size: tuple[int, int]
    parameterization: ParameterizationName = "pixels"
    update: UpdateName = "normalized"
    gaf: GafName = "none"
    proxy: Proxy = "surrogate"
    alone: int | None = None

    @classmethod
    def of(cls, network: Network, lane: Lane, size: tuple[int, int]) -> GroupKey:
        """The group that ``lane`` fits in."""
        settings = lane.settings
        return cls(
            network,
            lane.objective.layers,
            size,
            settings.parameterization,
            settings.update,
            settings.gaf,
            settings.proxy,
            None if network.batch_first else id(lane),
        )


class Group:
    """Lanes of one `GroupKey`; `step` advances all of them by one step."""

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.lanes: list[Lane] = []
        shape = (key.network.input_shape[0], *key.size)
        device = key.network.device
        self._images: Parameterization = parameterization(key.parameterization, shape, device)
        self._rule: UpdateRule = update_rule(key.update, key.gaf)
        self._params = self._images.start(torch.Generator()).to(device).unsqueeze(0)[:0]  # (0, *P)
        self._state = new_state(self._rule, self._params)  # each (lanes, *P)

    def join(self, lane: Lane) -> None:
        """Take a lane in, at its start: a given image, or the random one of its seed."""
        if lane.start is None:
            params = self._images.start(lane.generator).to(self._params).unsqueeze(0)
        else:
            params = self._images.encode(lane.start.to(self._params).unsqueeze(0))
        self._params = torch.cat([self._params, params])
        fresh = new_state(self._rule, params)
        self._state = {name: torch.cat([rows, fresh[name]]) for name, rows in self._state.items()}
        self.lanes.append(lane)

    def leave(self, lane: Lane) -> None:
        """Let a lane go, whether it has ended or not."""
        self._keep([index for index, other in enumerate(self.lanes) if other is not lane])

    def step(self) -> list[Lane]:
        """Evaluate every lane and move those with steps left; the ended ones leave and are returned."""
        images, activations, steepest, gradient = self._evaluate()
        rows = torch.stack([activations, steepest], dim=1).tolist()  # one transfer a step
        steps = torch.tensor([lane.step for lane in self.lanes], device=gradient.device)
        for lane, image, (activation, slope) in zip(self.lanes, images, rows, strict=True):
            lane.note(activation, slope, image)
        self._move(gradient, steps)
        ended = [lane for lane in self.lanes if lane.ended]
        if ended:
            self._keep([index for index, lane in enumerate(self.lanes) if not lane.ended])
        return ended

    def _evaluate(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images ``(lanes, C, H, W)``; their activations and the largest entries of the activations' own
        gradients, both ``(lanes,)``; and where the parameters should go, ``(lanes, *P)``, penalties included.
        """
        params = self._params.detach().requires_grad_()  # (lanes, *P)
        images = self._images.decode(params)  # (lanes, C, H, W)
        views = apply(images, [lane.view(self.key.size, images.shape[1]) for lane in self.lanes])
        with surrogate(self._slopes(), proxy=self.key.proxy):
            read = self.key.network.read(views, self.key.layers)
        values = self._values(read)  # (lanes,)
        if not values.requires_grad:
            raise NetworkError(f"layer {self.key.layers[0]!r} does not depend on the image")
        families = self._families()
        (gradient,) = torch.autograd.grad(values.sum(), images, retain_graph=bool(families))
        steepest = gradient.flatten(1).abs().amax(dim=1)
        for rows, weight in families:
            gradient = push_apart(gradient, images, read, rows, weight)
        gradient = self._penalized(gradient, images)
        if images is not params:
            (gradient,) = torch.autograd.grad(images, params, gradient)
        if self.key.proxy == "network":
            with torch.no_grad():
                values = self._values(self.key.network.read(views, self.key.layers))
        return images.detach(), values.detach(), steepest, gradient

    def _values(self, read: dict[str, Tensor]) -> Tensor:
        rows = [
            {layer: value[index : index + 1] for layer, value in read.items()}
            for index in range(len(self.lanes))
        ]
        return torch.cat([lane.objective(row) for lane, row in zip(self.lanes, rows, strict=True)])

    def _penalized(self, gradient: Tensor, images: Tensor) -> Tensor:
        weights = [(lane.settings.total_variation, lane.settings.l2) for lane in self.lanes]
        if not any(roughness or distance for roughness, distance in weights):
            return gradient
        roughness, distance = torch.tensor(weights, device=gradient.device).T
        return penalize(normalize(gradient), images, roughness, distance)

    def _move(self, gradient: Tensor, steps: Tensor) -> None:
        rates = gradient.new_tensor([lane.rate for lane in self.lanes])
        self._params = self._images.project(
            self._rule.step(self._params, gradient, rates, self._state, steps)
        )
        widths = [lane.settings.blur_px for lane in self.lanes]
        if any(widths):  # of pixels only, which `Settings` sees to
            self._params = blur(self._params, gradient.new_tensor(widths))

    def _slopes(self) -> float | Tensor:
        slopes = [lane.slope for lane in self.lanes]
        return slopes[0] if len(set(slopes)) == 1 else torch.tensor(slopes, device=self._params.device)

    def _families(self) -> list[tuple[list[int], float]]:
        """Rows of the lanes that shall differ from each other, and how much that counts."""
        members: dict[int, list[int]] = {}
        for index, lane in enumerate(self.lanes):
            if lane.family is not None:
                members.setdefault(id(lane.family), []).append(index)
        weighted = [(rows, self.lanes[rows[0]].family) for rows in members.values() if len(rows) > 1]
        return [(rows, family.diversity) for rows, family in weighted if family is not None]

    def _keep(self, rows: Sequence[int]) -> None:
        self.lanes = [self.lanes[index] for index in rows]
        self._params = self._params[list(rows)]
        self._state = {name: value[list(rows)] for name, value in self._state.items()}
