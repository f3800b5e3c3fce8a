"""One step of gradient ascent for a batch of lanes: forward pass, backward pass, update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxygrad.backward.surrogate import surrogate
from proxygrad.engine.capacity import out_of_memory
from proxygrad.engine.lane import Lane
from proxygrad.errors import NetworkError
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.langevin.rules import divergence
from proxygrad.networks.layer_reader import LayerReader
from proxygrad.optim.gradient_activations import normalize
from proxygrad.optim.regularizers import blur, penalize, push_apart
from proxygrad.optim.update_rules import StepContext, UpdateRule
from proxygrad.parameterizations import Parameterization
from proxygrad.spec.settings import Proxy
from proxygrad.transforms import Draw, apply


@dataclass(frozen=True)
class StepEvaluation:
    """The results of one forward and one backward pass.

    ``images`` ``(lanes, C, H, W)``; their ``activations`` and the ``steepest`` entries of the activations'
    own gradients, both ``(lanes,)``; ``gradient`` ``(lanes, *P)``: where the parameters should go, penalties
    included. ``realism``: the discriminator's gradient of log D by the parameters, or None without one.
    """

    images: Tensor
    activations: Tensor
    steepest: Tensor
    gradient: Tensor
    realism: Tensor | None = None


@dataclass(frozen=True)
class AscentStep:
    """What all lanes of a batch have in common in a step: the network, the parameters and the update rule.

    ``guarded``: of `proxygrad.backward.surrogate.surrogate`. ``discriminator``: of Langevin chains.
    """

    read: LayerReader
    parameterization: Parameterization
    rule: UpdateRule
    proxy: Proxy = "surrogate"
    spread_max_pool: float = 0.0
    guarded: bool = False
    discriminator: Discriminator | None = None

    def evaluate(self, lanes: Sequence[Lane], params: Tensor, draws: Sequence[Draw]) -> StepEvaluation:
        """One forward and one backward pass of ``params`` ``(lanes, *P)``, each as its draw sees it.

        Raises `NetworkError` when the objectives' layers do not depend on the image.
        """
        params = params.detach().requires_grad_()  # (lanes, *P)
        images = self.parameterization.decode(params)  # (lanes, C, H, W)
        views = apply(images, draws)
        slopes, share = _slopes(lanes, params.device), self.spread_max_pool
        with surrogate(slopes, self.proxy, spread_max_pool=share, guarded=self.guarded):
            read = self.read(views)
        values = _objectives(lanes, read)  # (lanes,)
        groups = _diversity_groups(lanes)
        gradient = _gradient(values, images, retain_graph=bool(groups))
        if gradient is None:
            raise NetworkError(f"layer {lanes[0].objective.layers[0]!r} does not depend on the image")
        steepest = gradient.flatten(1).abs().amax(dim=1)
        for rows, weight in groups:
            gradient = push_apart(gradient, images, read, rows, weight)
        gradient = _penalized(lanes, gradient, images)
        if images is not params:
            (gradient,) = torch.autograd.grad(images, params, gradient)
        if self.proxy == "network":
            with torch.no_grad():
                values = _objectives(lanes, self.read(views))
        # Rules see one memory layout, whatever the network's: element-wise code rounds by it now and then.
        return StepEvaluation(
            images.detach(), values.detach(), steepest, gradient.contiguous(), self._realism(images)
        )

    def _realism(self, images: Tensor) -> Tensor | None:
        """∇ log D of all images in one pass, ``(lanes, C, H, W)``; chains move pixels, so images are "
        "params."""
        if self.discriminator is None:
            return None
        with torch.enable_grad():
            free = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.discriminator.log_real(free).sum(), free)
        return gradient.contiguous()

    def update(
        self,
        lanes: Sequence[Lane],
        params: Tensor,
        found: StepEvaluation,
        state: dict[str, Tensor],
        steps_done: Tensor,
    ) -> Tensor:
        """The next parameters ``(lanes, *P)``; ``state`` is the rule's, ``steps_done`` ``(lanes,)``."""
        gradient = found.gradient
        context = StepContext(
            rates=gradient.new_tensor([lane.rate for lane in lanes]),
            steps_done=steps_done,
            generators=[lane.generator for lane in lanes],
            realism=found.realism,
        )
        proposal = self.rule.step(params, gradient, state, context)
        for lane, row in zip(lanes, proposal, strict=True):
            if lane.langevin is not None and not lane.ended:
                reason = divergence(lane.langevin, row)
                if reason is not None:
                    lane.diverge(lane.step, reason)
        params = self.parameterization.project(proposal)
        widths = [lane.settings.blur_px for lane in lanes]
        if any(widths):  # of pixels only, which `AscentSettings` sees to
            params = blur(params, gradient.new_tensor(widths))
        return params


def _gradient(values: Tensor, images: Tensor, retain_graph: bool) -> Tensor | None:
    """Of the sum of ``values`` by ``images``; None where they do not depend on them, as behind a ``detach``.
    Raises `NetworkError` where there is no backward pass."""
    if not values.requires_grad:
        return None
    try:
        return torch.autograd.grad(values.sum(), images, retain_graph=retain_graph, allow_unused=True)[0]
    except torch.AcceleratorError:
        raise
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise NetworkError(f"the network has no backward pass: {error}") from error


def _slopes(lanes: Sequence[Lane], device: torch.device) -> float | Tensor:
    slopes = [lane.slope for lane in lanes]
    return slopes[0] if len(set(slopes)) == 1 else torch.tensor(slopes, device=device)


def _objectives(lanes: Sequence[Lane], read: dict[str, Tensor]) -> Tensor:
    """The objective of each lane, ``(lanes,)``."""
    rows = [{layer: value[row : row + 1] for layer, value in read.items()} for row in range(len(lanes))]
    return torch.cat([lane.objective(row) for lane, row in zip(lanes, rows, strict=True)])


def _penalized(lanes: Sequence[Lane], gradient: Tensor, images: Tensor) -> Tensor:
    weights = [(lane.settings.total_variation, lane.settings.l2) for lane in lanes]
    if not any(roughness or distance for roughness, distance in weights):
        return gradient
    roughness, distance = gradient.new_tensor(weights).T
    return penalize(normalize(gradient), images, roughness, distance)


def _diversity_groups(lanes: Sequence[Lane]) -> list[tuple[list[int], float]]:
    """Rows of the lanes that shall differ from each other, and the weight of that."""
    members: dict[int, list[int]] = {}
    for index, lane in enumerate(lanes):
        if lane.diversity_group is not None:
            members.setdefault(id(lane.diversity_group), []).append(index)
    weighted = [(rows, lanes[rows[0]].diversity_group) for rows in members.values() if len(rows) > 1]
    return [(rows, group.weight) for rows, group in weighted if group is not None]
