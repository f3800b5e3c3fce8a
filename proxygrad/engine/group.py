"""A group of lanes: images that are optimized together, one forward and one backward pass a step for all.

Lanes of a group share what `GroupKey` names and nothing else: each has its own objective, slope, seed, views,
penalties, number of steps and end. They join and leave between steps, so a short one never waits for a
long one. Each lane's state is one row of the group's tensors.

A step evaluates its lanes slice by slice and then moves all; nothing of a lane advances before all slices
are through. A slice is one batch, of a size that rounds as one image does (`proxygrad.engine.batch_sizes`),
or less: where memory is too short (`Capacity`), where the network takes no batches, or only such as have one
slope (`proxygrad.networks.batching`). A diversity group stays in one slice, of several batches: its images
are compared with each other. Between two slices other groups may have their turn (`Group.turn`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, takewhile

import torch

from proxygrad.engine.batch_sizes import SHAPE, BatchSizes
from proxygrad.engine.capacity import Capacity, out_of_memory, release
from proxygrad.engine.lane import NO_OVERRIDES, Lane, LaneState, MethodOverrides
from proxygrad.engine.step import AscentStep, StepEvaluation
from proxygrad.errors import OutOfMemory
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.langevin.rules import langevin_pixels, langevin_rule
from proxygrad.networks.layer_reader import LayerReader
from proxygrad.networks.network import Network
from proxygrad.optim.update_rules import UpdateRule, new_state, update_rule
from proxygrad.parameterizations import Parameterization, parameterization
from proxygrad.precision import Precision
from proxygrad.spec.langevin import LangevinSettings, check_discriminator
from proxygrad.spec.settings import GAF_ALPHA, GAF_BETA, GafName, ParameterizationName, Proxy, UpdateName
from proxygrad.transforms import Draw


@dataclass(frozen=True)
class GroupKey:
    """What lanes must have in common to be stepped together. ``size``: height and width in pixels.

    ``alone`` identifies the one request whose lanes make up a group that takes no others: one of more lanes
    than the engine steps at once. ``precision`` is the setting, not yet what it
    comes to. ``overrides`` are compared by identity.
    """

    network: Network
    layers: tuple[str, ...]
    size: tuple[int, int]
    parameterization: ParameterizationName = "pixels"
    update: UpdateName = "normalized"
    gaf: GafName = "none"
    gaf_alpha: float = GAF_ALPHA
    gaf_beta: float = GAF_BETA
    proxy: Proxy = "surrogate"
    spread_max_pool: float = 0.0
    alone: int | None = None
    precision: Precision = "float32"
    overrides: MethodOverrides = NO_OVERRIDES
    langevin: LangevinSettings | None = None

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
            settings.gaf_alpha,
            settings.gaf_beta,
            settings.proxy,
            settings.spread_max_pool,
            precision=precision,
            overrides=lane.overrides,
            langevin=lane.langevin and lane.langevin.model_copy(update={"chains": None}),
        )

    @property
    def parameters(self) -> Parameterization:
        """What the steps of this group move."""
        shape = (self.network.input_shape[0], *self.size)
        if self.langevin is not None:
            return langevin_pixels(self.langevin, shape)
        return self.overrides.parameterization or parameterization(
            self.parameterization, shape, self.network.device
        )

    @property
    def rule(self) -> UpdateRule:
        """How they move."""
        if self.langevin is not None:
            return langevin_rule(self.langevin)
        own = self.overrides.update_rule
        return own or update_rule(self.update, self.gaf, self.gaf_alpha, self.gaf_beta)

    @property
    def discriminator(self) -> Discriminator | None:
        """What leads its chains beside the activation. Raises `InvalidRequest` where the network has none, or
        one for images of another size.
        """
        if self.langevin is None or not self.langevin.discriminator_weight:
            return None
        check_discriminator(self.network.info, self.langevin.discriminator_weight, self.size)
        return self.network.discriminator


@dataclass
class _StepUnderWay:
    """A step of which some slices have been evaluated: ``parts``, each with its rows."""

    draws: Sequence[Draw]
    waiting: list[list[int]]
    parts: list[tuple[list[int], StepEvaluation]] = field(default_factory=list)


class Group:
    """Lanes of one `GroupKey`; `step` advances all of them by one step.

    ``read``: in place of the reader that ``key`` prepares. ``most``: lanes of one slice; None: all.
    """

    def __init__(self, key: GroupKey, read: LayerReader | None = None, most: int | None = None) -> None:
        self.key = key
        self._most = most
        self._under_way: _StepUnderWay | None = None
        self.lanes: list[Lane] = []
        self._channels = key.network.input_shape[0]
        device = key.network.device
        self.capacity = Capacity(device)
        self._batching = key.network.batching
        self._step = AscentStep(
            read or key.network.prepared(key.layers, key.precision),
            key.parameters,
            key.rule,
            key.proxy,
            key.spread_max_pool,
            discriminator=key.discriminator,
            same_kernels=False,
        )
        if not self._batching.alone:
            image = torch.full((1, self._channels, *key.size), 0.5, dtype=torch.float32, device=device)
            on_cuda = device.type == "cuda"
            self._step = replace(self._step, least=SHAPE) if on_cuda else self._step.suited(image)
        alike = (key.size, key.proxy, key.spread_max_pool)  # beside the network, all that a pass depends on
        self._sizes = BatchSizes(
            self._step.trial,
            (self._channels, *key.size),
            device,
            self._step.read.memory.setdefault(alike, {}),
            mixed=not self._batching.folded,
        )
        first = self._step.parameterization.start(torch.Generator().manual_seed(0))
        self._params = first.to(device, torch.float32).unsqueeze(0)[:0]  # (0, *P)
        self._state = new_state(self._step.rule, self._params)  # each (lanes, *P)

    def join(self, lane: Lane, state: LaneState | None = None) -> None:
        """Add a lane: at its start, or at ``state``, which `state` returned for a lane of the same request.

        Raises `CheckpointMismatch` when ``state`` is of other shapes.
        """
        if state is None:
            params = lane.begin(self._step.parameterization, self.key.network.device)
            rule = new_state(self._step.rule, params)
        else:
            state.check(self._params.shape[1:], self._state, (self._channels, *self.key.size))
            params = state.params.to(self._params).unsqueeze(0)
            rule = {name: value.to(self._params).unsqueeze(0) for name, value in state.rule.items()}
            lane.resume(state, self.key.network.device)
        lane.dtype = self._step.read.dtype
        joined = torch.cat([self._params, params])
        self._state = {name: torch.cat([rows, rule[name]]) for name, rows in self._state.items()}
        self._params = joined
        self._under_way = None
        self.lanes.append(lane)

    def full(self, at_first: int, joining: int = 1) -> bool:
        """Whether so many more lanes should wait: for `Capacity.lanes`, ``at_first`` before the first step.

        Where there are none, any number may join: they are not less later.
        """
        return bool(self.lanes) and len(self.lanes) + joining > self.capacity.lanes(at_first)

    def leave(self, lane: Lane) -> None:
        """Remove a lane, whether it has ended or not."""
        self._keep([index for index, other in enumerate(self.lanes) if other is not lane])

    def state(self, lane: Lane) -> LaneState:
        """Everything that the next steps of a lane of this group depend on."""
        row = next(index for index, other in enumerate(self.lanes) if other is lane)
        return lane.state(self._params[row], {name: rows[row] for name, rows in self._state.items()})

    def step(self, on_slice: Callable[[], None] = lambda: None) -> list[Lane]:
        """Evaluate every lane and move those with steps left; the ended ones leave and are returned.
        Those that a trial drops leave as well, and are not returned.

        A lane that does not fit on the device even alone ends with `OutOfMemory`. ``on_slice`` is called
        whenever a part of the lanes has been evaluated. When this raises, no lane has advanced.
        """
        while (ended := self.turn(on_slice)) is None:
            pass
        return ended

    def turn(self, on_slice: Callable[[], None] = lambda: None) -> list[Lane] | None:
        """The next slice of a step; after its last one, what `step` returns. None: the step goes on.

        A step begins anew where lanes have joined or left since its last slice.
        """
        if self._under_way is None:
            draws = [lane.view(self.key.size, self._channels) for lane in self.lanes]
            self._under_way = _StepUnderWay(draws, self._inseparable())
        step, self._under_way = self._under_way, None  # forgotten if this raises
        self._evaluate_slice(step)
        on_slice()
        if not step.waiting:
            return self._advance(self._whole(step.parts))
        self._under_way = step
        return None

    def _advance(self, found: StepEvaluation) -> list[Lane] | None:
        """Move the lanes; the ended ones. None where the step has to be evaluated again, with a guard."""
        rows = torch.stack([found.activations, found.steepest], dim=1).tolist()  # one transfer a step
        failed = [
            lane for lane, row in zip(self.lanes, rows, strict=True) if not all(map(math.isfinite, row))
        ]
        if unguarded := [lane for lane in failed if not lane.guarded]:
            for lane in unguarded:
                lane.guarded = True  # from now on: it may be the slope
            return None
        steps_done = torch.tensor([lane.step for lane in self.lanes], device=found.gradient.device)
        for lane, image, (activation, steepest) in zip(self.lanes, found.images, rows, strict=True):
            if lane.error is None:
                lane.note(activation, steepest, image)
        self._params = self._step.update(self.lanes, self._params, found, self._state, steps_done)
        for trial in {lane.trial for lane in self.lanes if lane.trial is not None}:
            trial.choose()
        ended = [lane for lane in self.lanes if lane.ended and not lane.dropped]
        staying = [row for row, lane in enumerate(self.lanes) if not (lane.ended or lane.dropped)]
        if len(staying) < len(self.lanes):
            self._keep(staying)
        return ended

    def _evaluate_slice(self, step: _StepUnderWay) -> None:
        """The next lanes of a step, as many as memory and the network take."""
        taken = self._fitting(step.waiting)
        rows = [row for each in step.waiting[:taken] for row in each]
        try:
            found = self._attempt(rows, step.draws)
        except Exception as error:  # perhaps of a network that takes fewer images at a time
            if taken == 1 or isinstance(error, torch.AcceleratorError):
                raise
            found = str(error)
        if isinstance(found, str) and taken > 1:
            self.capacity.halve(len(rows))
            self._evaluate_slice(step)
            return
        step.waiting = step.waiting[taken:]
        if isinstance(found, str):
            self._refuse(rows, found)
        else:
            step.parts.append((rows, found))
            self.capacity.passed(len(rows))

    def _whole(self, parts: list[tuple[list[int], StepEvaluation]]) -> StepEvaluation:
        if len(parts) == 1 and parts[0][0] == list(range(len(self.lanes))):
            return parts[0][1]
        return self._joined(parts)

    def _inseparable(self) -> list[list[int]]:
        """Rows that must be evaluated together: each lane for itself, but diversity groups as a whole. Those
        of one kind come after each other, and among them those of one slope."""
        members: dict[int, list[int]] = {}
        for row, lane in enumerate(self.lanes):
            members.setdefault(id(lane.diversity_group or lane), []).append(row)
        return sorted(members.values(), key=lambda rows: (self._kind(rows), self._slope(rows)))

    def _slope(self, rows: list[int]) -> float:
        return self.lanes[rows[0]].slope

    def _kind(self, rows: list[int]) -> tuple[bool, float]:
        """What the lanes of a slice have in common."""
        slope = self._slope(rows) if self._batching.folded else 0.0
        return any(self.lanes[row].guarded for row in rows), slope

    def _fitting(self, waiting: list[list[int]]) -> int:
        """How many of those come into the next slice: at least one."""
        limits = (self._most, self.capacity.limit, 1 if self._batching.alone else None)
        kin = list(takewhile(lambda rows: self._kind(rows) == self._kind(waiting[0]), waiting))
        ends = list(accumulate(map(len, kin)))
        limit = min((ends[-1], *(each for each in limits if each is not None)))
        if limit > 1 and len(kin) > 1:
            limit = self._sizes.fitting(limit)
        return max(1, sum(end <= limit for end in ends))

    def _attempt(self, rows: list[int], draws: Sequence[Draw]) -> StepEvaluation | str:
        """The evaluation of the lanes of ``rows``; or, when memory ran out, the message of that error."""
        try:
            with self.capacity.watched(len(rows)), self._step.read.arithmetic():
                return self._pass(rows, [draws[row] for row in rows])
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        release(self.key.network.device)  # out here no exception holds the frames of the failed pass
        return reason

    def _pass(self, rows: list[int], draws: Sequence[Draw]) -> StepEvaluation:
        params = self._params[rows]
        sizes = [1] * len(rows) if self._batching.alone else self._sizes.split(len(rows))
        step = self._step
        if step.least == SHAPE:
            step = replace(step, least=min(SHAPE, self.capacity.limit or SHAPE))  # memory has the last word
        return step.evaluate([self.lanes[row] for row in rows], params, draws, sizes)

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
        realism = None if self._step.discriminator is None else torch.zeros_like(self._params)
        for rows, part in parts:
            if realism is not None and part.realism is not None:
                realism[rows] = part.realism
            images[rows], gradient[rows] = part.images, part.gradient
            activations[rows], steepest[rows] = part.activations, part.steepest
        return StepEvaluation(images, activations, steepest, gradient, realism)

    def _keep(self, rows: Sequence[int]) -> None:
        self._under_way = None
        self.lanes = [self.lanes[index] for index in rows]
        self._params = self._params[list(rows)]
        self._state = {name: value[list(rows)] for name, value in self._state.items()}
