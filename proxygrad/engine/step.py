"""One step of gradient ascent for some lanes: forward pass, backward pass, update.

The network alone sees several lanes at once, in batches that round as one image does
(`proxygrad.engine.batch_sizes`). All else is done for each lane by itself, in tensors of its own: kernels
round by shapes, by places in a batch and by addresses, and a lane must not depend on who else is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from proxygrad.backward.surrogate import surrogate
from proxygrad.engine.batch_sizes import Rounding
from proxygrad.engine.capacity import out_of_memory
from proxygrad.engine.lane import Lane
from proxygrad.errors import NetworkError
from proxygrad.kernels import same_kernels
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.langevin.rules import divergence
from proxygrad.networks.batchnorm_folding import FoldMismatch
from proxygrad.networks.layer_reader import LayerReader
from proxygrad.optim.gradient_activations import normalize
from proxygrad.optim.regularizers import blur, penalize, similarity
from proxygrad.optim.update_rules import StepContext, UpdateRule
from proxygrad.parameterizations import Parameterization
from proxygrad.spec.settings import Proxy
from proxygrad.transforms import Draw, apply

#: One layer's value of one image each, ``(1, …)``; None: it has no part in a gradient.
_Read = dict[str, Tensor]
_Pulled = Sequence[Tensor | None]


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

    ``discriminator``: of Langevin chains. ``least``: images of a pass, at least; copies of its first one are
    added. ``same_kernels``: whether passes need `proxygrad.kernels.same_kernels`.
    """

    read: LayerReader
    parameterization: Parameterization
    rule: UpdateRule
    proxy: Proxy = "surrogate"
    spread_max_pool: float = 0.0
    discriminator: Discriminator | None = None
    least: int = 1
    same_kernels: bool = True

    def evaluate(
        self, lanes: Sequence[Lane], params: Tensor, draws: Sequence[Draw], sizes: Sequence[int] = ()
    ) -> StepEvaluation:
        """One forward and one backward pass of ``params`` ``(lanes, *P)``, each as its draw sees it.

        ``sizes``: of the batches, one after another; by default one. Raises `NetworkError` when the
        objectives' layers do not depend on the image.
        """
        rows = [row.clone().requires_grad_() for row in params.detach().split(1)]  # each (1, *P)
        images = [self.parameterization.decode(row) for row in rows]  # each (1, C, H, W)
        views = [apply(image, [draw]) for image, draw in zip(images, draws, strict=True)]
        passes = self._passes(lanes, views, sizes)
        values = [each for one in passes for each in one.values(lanes)]  # each (1,)
        groups = _diversity_groups(lanes)
        pulled = _pull(passes, _by_layers(values, passes, lanes), retain_graph=bool(groups))
        gradients = [
            _through(*each, retain_graph=bool(groups)) for each in zip(views, images, pulled, strict=True)
        ]
        steepest = [gradient.abs().amax().view(1) for gradient in gradients]
        for members, weight in groups:
            alike = _pull(passes, _of_likeness(passes, members), retain_graph=True)
            for row in members:
                push = _through(views[row], images[row], alike[row], retain_graph=True)
                gradients[row] = normalize(gradients[row]) - weight * normalize(push)
        gradients = [_penalized(*each) for each in zip(lanes, gradients, images, strict=True)]
        gradients = [_through(*each) for each in zip(images, rows, gradients, strict=True)]
        if self.proxy == "network":
            with torch.no_grad():
                values = [each for one in passes for each in self._again(one).values(lanes)]
        realism = [self._realism(image) for image in images if self.discriminator is not None]
        return StepEvaluation(
            torch.cat(images).detach(),
            torch.cat(values).detach(),
            torch.cat(steepest),
            torch.cat(gradients),
            torch.cat(realism) if realism else None,
        )

    def suited(self, image: Tensor) -> AscentStep:
        """The same for images like ``image`` ``(1, C, H, W)``, with what its passes need on the CPU.

        Where most convolutions of one image would need a second one, it is less to give the network two: the
        decision depends on the network and the number of threads alone.
        """
        key = ("kernels", tuple(image.shape), torch.get_num_threads())
        if key not in self.read.memory:
            with self.read.arithmetic(), torch.no_grad(), same_kernels() as counted:
                self.read(image)
            twice = 2 * counted.filled > counted.convolutions
            needed = counted.products > 0 or (counted.filled > 0 and not twice)
            self.read.memory[key] = (2 if twice else 1, needed)
        least, needed = self.read.memory[key]
        return replace(self, least=least, same_kernels=needed)

    def trial(self, images: Tensor, slopes: Sequence[float]) -> list[Rounding]:
        """What a pass makes of ``images`` ``(B, C, H, W)`` as one batch (`proxygrad.engine.batch_sizes`)."""
        with self.read.arithmetic():
            one = self._pass(0, list(images.split(1)), slopes, guarded=False)
            weighed = [[_weights(value) for value in row.values()] for row in one.read]
            found = _pull([one], weighed)
        return [
            Rounding(tuple(value.detach() for value in row.values()), gradient)
            for row, gradient in zip(one.rows, found, strict=True)
        ]

    def _passes(self, lanes: Sequence[Lane], views: Sequence[Tensor], sizes: Sequence[int]) -> list[_Pass]:
        """One pass for each of ``sizes``."""
        slopes, guarded = [lane.slope for lane in lanes], any(lane.guarded for lane in lanes)
        passes = list[_Pass]()
        for end, size in zip(accumulate(sizes or [len(lanes)]), sizes or [len(lanes)], strict=True):
            begin = end - size
            try:
                passes.append(self._pass(begin, views[begin:end], slopes[begin:end], guarded))
            except FoldMismatch:  # of one of them, which must not tell on the others
                passes += [self._pass(row, [views[row]], [slopes[row]], guarded) for row in range(begin, end)]
        return passes

    def _pass(self, first: int, views: Sequence[Tensor], slopes: Sequence[float], guarded: bool) -> _Pass:
        added = max(0, self.least - len(views))
        filled = [*views, *[views[0]] * added]
        inputs = torch.cat([view.detach() for view in filled]).requires_grad_()  # (B, C, H, W)
        chosen = _slopes([*slopes, *[slopes[0]] * added], inputs.device)
        method = surrogate(chosen, self.proxy, spread_max_pool=self.spread_max_pool, guarded=guarded)
        return self._read(first, len(views), inputs, method)

    def _read(
        self, first: int, count: int, inputs: Tensor, method: AbstractContextManager[object] | None = None
    ) -> _Pass:
        with self._kernels(), method or nullcontext():
            return _Pass(first, count, inputs, self.read(inputs))

    def _again(self, one: _Pass) -> _Pass:
        """Without the proxy."""
        return self._read(one.first, one.count, one.inputs)

    def _kernels(self) -> AbstractContextManager[object]:
        return same_kernels() if self.same_kernels else nullcontext()

    def _realism(self, image: Tensor) -> Tensor:
        """∇ log D of one image, ``(1, C, H, W)``; chains move pixels, so images are params."""
        if self.discriminator is None:
            raise ValueError("there is no discriminator")
        with torch.enable_grad():
            free = image.detach().requires_grad_()
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
        moved, states = list[Tensor](), list[dict[str, Tensor]]()
        for row, lane in enumerate(lanes):
            own = slice(row, row + 1)
            states.append({name: value[own].clone() for name, value in state.items()})
            context = StepContext(
                rates=found.gradient.new_tensor([lane.rate]),
                steps_done=steps_done[own],
                generators=[lane.generator],
                realism=None if found.realism is None else found.realism[own].clone(),
            )
            gradient = found.gradient[own].clone()
            moved.append(self._moved(lane, params[own].clone(), gradient, states[-1], context))
        state.update({name: torch.cat([each[name] for each in states]) for name in state})
        return torch.cat(moved)

    def _moved(
        self, lane: Lane, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        """The next parameters of one lane, ``(1, *P)``."""
        proposal = self.rule.step(params, gradient, state, context)
        if lane.langevin is not None and not lane.ended:
            reason = divergence(lane.langevin, proposal[0])
            if reason is not None:
                lane.diverge(lane.step, reason)
        params = self.parameterization.project(proposal)
        if lane.settings.blur_px:  # of pixels only, which `AscentSettings` sees to
            params = blur(params, gradient.new_tensor([lane.settings.blur_px]))
        return params


class _Pass:
    """One batch after its forward pass. ``rows``: what each image reads, cut off from the network, so that
    an objective's gradient is its own."""

    def __init__(self, first: int, count: int, inputs: Tensor, read: _Read) -> None:
        self.first = first
        self.count = count
        self.inputs = inputs
        self.outputs = read
        # In memory of their own: matrix products round by the address of what they multiply.
        self.read = [
            {name: value[row : row + 1].detach().clone() for name, value in read.items()}
            for row in range(count)
        ]
        self.rows = [{name: value[row : row + 1] for name, value in read.items()} for row in range(count)]
        for each in self.read:
            for name, value in each.items():
                value.requires_grad_(read[name].requires_grad)

    def values(self, lanes: Sequence[Lane]) -> list[Tensor]:
        """The objective of each lane, ``(1,)``."""
        own = lanes[self.first : self.first + self.count]
        return [lane.objective(read) for lane, read in zip(own, self.read, strict=True)]

    def pull(self, rows: Sequence[_Pulled], retain_graph: bool) -> list[Tensor]:
        """Gradients by the images, ``(1, C, H, W)`` each, from those by what each reads."""
        added = len(self.inputs) - self.count
        outputs, grads = list[Tensor](), list[Tensor]()
        for number, value in enumerate(self.outputs.values()):
            given = [row[number] for row in rows]
            if value.requires_grad and any(each is not None for each in given):
                like = next(each for each in given if each is not None)
                zeros = torch.zeros_like(like)
                outputs.append(value)
                grads.append(
                    torch.cat([*(zeros if each is None else each for each in given), *[zeros] * added])
                )
        gradient = None
        if outputs:
            (gradient,) = torch.autograd.grad(
                outputs, self.inputs, grads, retain_graph=retain_graph, allow_unused=True
            )
        if gradient is None:
            raise NetworkError(f"layer {next(iter(self.outputs))!r} does not depend on the image")
        # Rules see one memory layout, whatever the network's: element-wise code rounds by it now and then.
        return [row.clone(memory_format=torch.contiguous_format) for row in gradient[: self.count].split(1)]


def _pull(passes: Sequence[_Pass], rows: Sequence[_Pulled], retain_graph: bool = False) -> list[Tensor]:
    """Through all passes. Raises `NetworkError` where there is no backward pass."""
    try:
        return [
            gradient
            for one in passes
            for gradient in one.pull(rows[one.first : one.first + one.count], retain_graph)
        ]
    except torch.AcceleratorError:
        raise
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise NetworkError(f"the network has no backward pass: {error}") from error


def _through(output: Tensor, start: Tensor, gradient: Tensor, retain_graph: bool = False) -> Tensor:
    """``gradient`` by ``output`` as one by ``start``, from which it was made; contiguous."""
    if output is start:
        return gradient
    (found,) = torch.autograd.grad(output, start, gradient, retain_graph=retain_graph)
    return found.contiguous()


def _by_layers(values: Sequence[Tensor], passes: Sequence[_Pass], lanes: Sequence[Lane]) -> list[_Pulled]:
    """The gradient of each lane's objective by what it read."""
    rows = [read for one in passes for read in one.read]
    return [_by_read(value, list(read.values())) for value, read in zip(values, rows, strict=True)]


def _by_read(value: Tensor, read: Sequence[Tensor]) -> _Pulled:
    free = [each for each in read if each.requires_grad]
    if not (free and value.requires_grad):
        return [None] * len(read)
    found = iter(torch.autograd.grad(value.sum(), free, allow_unused=True))
    grads = [next(found) if each.requires_grad else None for each in read]
    return [None if each is None else each.contiguous() for each in grads]


def _of_likeness(passes: Sequence[_Pass], members: Sequence[int]) -> list[_Pulled]:
    """The gradient of how alike ``members`` are in the first layer, by what each lane read."""
    rows = [list(read.values()) for one in passes for read in one.read]
    first = [rows[row][0] for row in members]
    found = torch.autograd.grad(similarity(torch.cat(first)), first)
    pulled: dict[int, Tensor] = dict(zip(members, found, strict=True))
    return [
        [pulled[row].contiguous() if row in pulled else None, *[None] * (len(read) - 1)]
        for row, read in enumerate(rows)
    ]


def _weights(value: Tensor) -> Tensor:
    """Different numbers, the same ones for each image, like ``value`` ``(1, …)``."""
    return torch.arange(value.numel(), device=value.device, dtype=value.dtype).cos().view(value.shape)


def _slopes(slopes: Sequence[float], device: torch.device) -> float | Tensor:
    return slopes[0] if len(set(slopes)) == 1 else torch.tensor(slopes, device=device)


def _penalized(lane: Lane, gradient: Tensor, image: Tensor) -> Tensor:
    weights = (lane.settings.total_variation, lane.settings.l2)
    if not any(weights):
        return gradient
    roughness, distance = gradient.new_tensor(weights).split(1)
    return penalize(normalize(gradient), image, roughness, distance)


def _diversity_groups(lanes: Sequence[Lane]) -> list[tuple[list[int], float]]:
    """Rows of the lanes that shall differ from each other, and the weight of that."""
    members: dict[int, list[int]] = {}
    for index, lane in enumerate(lanes):
        if lane.diversity_group is not None:
            members.setdefault(id(lane.diversity_group), []).append(index)
    weighted = [(rows, lanes[rows[0]].diversity_group) for rows in members.values() if len(rows) > 1]
    return [(rows, group.weight) for rows, group in weighted if group is not None]
