"""A group of lanes: images that are optimized together, one forward and one backward pass a step for all.

Lanes of a group share what `GroupKey` names and nothing else: each has its own objective, slope, seed, views,
penalties, number of steps and fate. They join and leave between steps, so a short one never waits for a
long one. Each lane's state is one row of the group's tensors.

Where memory is too short for all lanes at once, a step evaluates them slice by slice (`Capacity`) and then
moves all. Nothing of a lane advances before all slices are through. A family stays in one slice: its
images are compared with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxygrad.backward.surrogate import surrogate
from proxygrad.engine.capacity import Capacity, out_of_memory, release
from proxygrad.engine.lane import Lane, LaneState
from proxygrad.errors import NetworkError, OutOfMemory
from proxygrad.networks.network import Network
from proxygrad.optim.diversity import push_apart
from proxygrad.optim.regularizers import blur, penalize
from proxygrad.optim.update_rules import UpdateRule, new_state, normalize, update_rule
from proxygrad.parameterizations import Maco, Parameterization, parameterization
from proxygrad.precision import Precision
from proxygrad.spec.settings import GafName, ParameterizationName, Proxy, UpdateName
from proxygrad.transforms import Draw, apply


@dataclass(frozen=True)
class GroupKey:
    """What lanes must have in common to be stepped together. ``size``: height and width in pixels.

    ``alone`` names the one lane, or party of lanes, of a group that takes no other: because it asks for it
    (``solo``), or because rectifiers tell lanes apart by the first dimension, which is not the batch in every
    network (`Network.batch_first`); there each lane is evaluated for itself. ``precision`` is what is asked
    for, not yet what it comes to. ``maco`` holds a given magnitude, by identity.
    """

    network: Network
    layers: tuple[str, ...]
    size: tuple[int, int]
    parameterization: ParameterizationName = "pixels"
    update: UpdateName = "normalized"
    gaf: GafName = "none"
    proxy: Proxy = "surrogate"
    spread_max_pool: float = 0.0
    alone: int | None = None
    precision: Precision = "float32"
    maco: Maco | None = None

    @classmethod
    def of(
        cls, network: Network, lane: Lane, size: tuple[int, int], precision: Precision = "float32"
    ) -> GroupKey:
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
            settings.spread_max_pool,
            id(lane.together or lane) if settings.solo or not network.batch_first else None,
            precision,
            lane.maco,
        )


@dataclass(frozen=True)
class StepEvaluation:
    """What one forward and one backward pass found.

    ``images`` ``(lanes, C, H, W)``; their ``activations`` and the ``steepest`` entries of the activations'
    own gradients, both ``(lanes,)``; ``gradient`` ``(lanes, *P)``: where the parameters should go, penalties
    included.
    """

    images: Tensor
    activations: Tensor
    steepest: Tensor
    gradient: Tensor


class Group:
    """Lanes of one `GroupKey`; `step` advances all of them by one step."""

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.lanes: list[Lane] = []
        self._read = key.network.prepared(key.layers, key.precision)
        self._channels = key.network.input_shape[0]
        device = key.network.device
        self.capacity = Capacity(device)
        self._most = None if key.network.batch_first else 1  # lanes of one evaluation
        self._images: Parameterization = key.maco or parameterization(
            key.parameterization, (self._channels, *key.size), device
        )
        self._rule: UpdateRule = update_rule(key.update, key.gaf)
        self._params = self._images.start(torch.Generator()).to(device).unsqueeze(0)[:0]  # (0, *P)
        self._state = new_state(self._rule, self._params)  # each (lanes, *P)

    def join(self, lane: Lane, state: LaneState | None = None) -> None:
        """Take a lane in: at its start, or at ``state``, which `state` gave for a lane of the same question.

        Raises `CheckpointMismatch` when ``state`` is of other shapes.
        """
        if state is None:
            params = lane.begin(self._images, self.key.network.device)
            rule = new_state(self._rule, params)
        else:
            state.check(self._params.shape[1:], self._state, (self._channels, *self.key.size))
            params = state.params.to(self._params).unsqueeze(0)
            rule = {name: value.to(self._params).unsqueeze(0) for name, value in state.rule.items()}
            lane.resume(state, self.key.network.device)
        lane.dtype = self._read.dtype
        joined = torch.cat([self._params, params])
        self._state = {name: torch.cat([rows, rule[name]]) for name, rows in self._state.items()}
        self._params = joined
        self.lanes.append(lane)

    def full(self, at_first: int, joining: int = 1) -> bool:
        """Whether so many more lanes should wait: for `Capacity.lanes`, ``at_first`` before the first step.

        Where there are none, any number may join: they are not less later.
        """
        return bool(self.lanes) and len(self.lanes) + joining > self.capacity.lanes(at_first)

    def leave(self, lane: Lane) -> None:
        """Let a lane go, whether it has ended or not."""
        self._keep([index for index, other in enumerate(self.lanes) if other is not lane])

    def state(self, lane: Lane) -> LaneState:
        """Everything that the next steps of a lane of this group depend on."""
        row = next(index for index, other in enumerate(self.lanes) if other is lane)
        return lane.state(self._params[row], {name: rows[row] for name, rows in self._state.items()})

    def step(self, on_slice: Callable[[], None] = lambda: None) -> list[Lane]:
        """Evaluate every lane and move those with steps left; the ended ones leave and are returned.

        A lane that does not fit on the device even alone ends with `OutOfMemory`. ``on_slice`` is called
        whenever a part of the lanes has been evaluated. When this raises, no lane has advanced.
        """
        found = self._evaluate(on_slice)
        rows = torch.stack([found.activations, found.steepest], dim=1).tolist()  # one transfer a step
        steps = torch.tensor([lane.step for lane in self.lanes], device=found.gradient.device)
        for lane, image, (activation, steepest) in zip(self.lanes, found.images, rows, strict=True):
            if lane.error is None:
                lane.note(activation, steepest, image)
        self._move(found.gradient, steps)
        ended = [lane for lane in self.lanes if lane.ended]
        if ended:
            self._keep([index for index, lane in enumerate(self.lanes) if not lane.ended])
        return ended

    def _evaluate(self, on_slice: Callable[[], None]) -> StepEvaluation:
        """All lanes, in as many slices as memory asks for."""
        draws = [lane.view(self.key.size, self._channels) for lane in self.lanes]
        waiting, parts = self._inseparable(), list[tuple[list[int], StepEvaluation]]()
        while waiting:
            taken = self._fitting(waiting)
            rows = sorted(row for each in waiting[:taken] for row in each)
            found = self._attempt(rows, draws)
            if isinstance(found, StepEvaluation):
                parts.append((rows, found))
                self.capacity.passed(len(rows))
                on_slice()
            elif taken > 1:
                self.capacity.halve(len(rows))
                continue
            else:
                self._refuse(rows, found)
            waiting = waiting[taken:]
        if len(parts) == 1 and len(parts[0][0]) == len(self.lanes):
            return parts[0][1]
        return self._joined(parts)

    def _inseparable(self) -> list[list[int]]:
        """Rows that must be evaluated together: each lane for itself, but families as a whole."""
        members: dict[int, list[int]] = {}
        for row, lane in enumerate(self.lanes):
            members.setdefault(id(lane.family or lane), []).append(row)
        return list(members.values())

    def _fitting(self, waiting: list[list[int]]) -> int:
        """How many of those come into the next slice: at least one."""
        taken, lanes, limit = 0, 0, self._most or self.capacity.limit
        while taken < len(waiting):
            lanes += len(waiting[taken])
            if taken and limit is not None and lanes > limit:
                break
            taken += 1
        return taken

    def _attempt(self, rows: list[int], draws: Sequence[Draw]) -> StepEvaluation | str:
        """What was found; or, when memory ran out, the words for that."""
        try:
            with self.capacity.watched(len(rows)), self._read.arithmetic():
                return self._pass(rows, [draws[row] for row in rows])
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        release(self.key.network.device)  # out here no exception holds the frames of the failed pass
        return reason

    def _refuse(self, rows: list[int], reason: str) -> None:
        height, width = self.key.size
        images = "one image" if len(rows) == 1 else f"{len(rows)} images that shall differ from each other"
        for row in rows:
            self.lanes[row].error = OutOfMemory(
                f"the memory of {self.key.network.device} is too small for {images} of {height}x{width} px "
                f"up to layer {self.key.layers[0]!r}, at step {len(self.lanes[row].curve)}: {reason}"
            )

    def _joined(self, parts: list[tuple[list[int], StepEvaluation]]) -> StepEvaluation:
        """The parts in the order of the lanes; zeros for those that could not be evaluated."""
        images = self._params.new_zeros(len(self.lanes), self._channels, *self.key.size)
        activations, steepest = (self._params.new_zeros(len(self.lanes)) for _ in range(2))
        gradient = torch.zeros_like(self._params)
        for rows, part in parts:
            images[rows], gradient[rows] = part.images, part.gradient
            activations[rows], steepest[rows] = part.activations, part.steepest
        return StepEvaluation(images, activations, steepest, gradient)

    def _pass(self, rows: list[int], draws: Sequence[Draw]) -> StepEvaluation:
        """One forward and one backward pass of the lanes of ``rows``."""
        lanes = [self.lanes[row] for row in rows]
        params = self._params if len(rows) == len(self.lanes) else self._params[rows]
        params = params.detach().requires_grad_()  # (lanes, *P)
        images = self._images.decode(params)  # (lanes, C, H, W)
        views = apply(images, draws)
        with surrogate(self._slopes(lanes), self.key.proxy, spread_max_pool=self.key.spread_max_pool):
            read = self._read(views)
        values = _values(lanes, read)  # (lanes,)
        if not values.requires_grad:
            raise NetworkError(f"layer {self.key.layers[0]!r} does not depend on the image")
        families = _families(lanes)
        (gradient,) = torch.autograd.grad(values.sum(), images, retain_graph=bool(families))
        steepest = gradient.flatten(1).abs().amax(dim=1)
        for members, weight in families:
            gradient = push_apart(gradient, images, read, members, weight)
        gradient = _penalized(lanes, gradient, images)
        if images is not params:
            (gradient,) = torch.autograd.grad(images, params, gradient)
        if self.key.proxy == "network":
            with torch.no_grad():
                values = _values(lanes, self._read(views))
        # Rules see one memory layout, whatever the network's: element-wise code rounds by it now and then.
        return StepEvaluation(images.detach(), values.detach(), steepest, gradient.contiguous())

    def _move(self, gradient: Tensor, steps: Tensor) -> None:
        rates = gradient.new_tensor([lane.rate for lane in self.lanes])
        self._params = self._images.project(
            self._rule.step(self._params, gradient, rates, self._state, steps)
        )
        widths = [lane.settings.blur_px for lane in self.lanes]
        if any(widths):  # of pixels only, which `AscentSettings` sees to
            self._params = blur(self._params, gradient.new_tensor(widths))

    def _slopes(self, lanes: Sequence[Lane]) -> float | Tensor:
        slopes = [lane.slope for lane in lanes]
        return slopes[0] if len(set(slopes)) == 1 else torch.tensor(slopes, device=self._params.device)

    def _keep(self, rows: Sequence[int]) -> None:
        self.lanes = [self.lanes[index] for index in rows]
        self._params = self._params[list(rows)]
        self._state = {name: value[list(rows)] for name, value in self._state.items()}


def _values(lanes: Sequence[Lane], read: dict[str, Tensor]) -> Tensor:
    rows = [{layer: value[row : row + 1] for layer, value in read.items()} for row in range(len(lanes))]
    return torch.cat([lane.objective(row) for lane, row in zip(lanes, rows, strict=True)])


def _penalized(lanes: Sequence[Lane], gradient: Tensor, images: Tensor) -> Tensor:
    weights = [(lane.settings.total_variation, lane.settings.l2) for lane in lanes]
    if not any(roughness or distance for roughness, distance in weights):
        return gradient
    roughness, distance = torch.tensor(weights, device=gradient.device).T
    return penalize(normalize(gradient), images, roughness, distance)


def _families(lanes: Sequence[Lane]) -> list[tuple[list[int], float]]:
    """Rows of the lanes that shall differ from each other, and how much that counts."""
    members: dict[int, list[int]] = {}
    for index, lane in enumerate(lanes):
        if lane.family is not None:
            members.setdefault(id(lane.family), []).append(index)
    weighted = [(rows, lanes[rows[0]].family) for rows in members.values() if len(rows) > 1]
    return [(rows, family.diversity) for rows, family in weighted if family is not None]
