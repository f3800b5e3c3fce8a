"""One call for a notebook: images that maximise objectives, on the same engine parts as the service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from proxygrad.delivery import measure
from proxygrad.errors import ProxyGradError
from proxygrad.group import Group, GroupKey
from proxygrad.lane import Family, Lane
from proxygrad.network import Network
from proxygrad.objectives import Objective
from proxygrad.settings import Settings

#: Images stepped at once; the next join as these end. Enough to fill a CPU, as `proxygrad.engine` has it.
DEFAULT_MAX_LANES = 16


@dataclass(frozen=True)
class Outcome:
    """One image and the truth about it.

    ``image``: ``(C, H, W)`` float32 in [0, 1] on the CPU. ``achieved_activation``: of that image, alone on
    the network itself in float32, without proxy or views. ``curve``: the activation before each step and
    after the last one. ``stuck``: ascent had no gradient to follow and never rose above its start.
    ``settings`` and ``objective`` are those used, with nothing left open.
    """

    image: Tensor
    achieved_activation: float
    start_activation: float
    curve: tuple[float, ...]
    stuck: bool
    settings: Settings
    objective: Objective


def maximize(
    network: Network,
    objectives: Objective | Sequence[Objective],
    *,
    slope: float | Sequence[float] | None = None,
    images: int = 1,
    diversity: float = 0.0,
    start: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
    max_lanes: int = DEFAULT_MAX_LANES,
    **settings: Any,
) -> list[Outcome]:
    """Optimise one image for each objective, as one batch where they fit together; outcomes in that order.

    ``slope``: one for all, or one for each objective. ``images``: so many for each objective, with seeds from
    ``seed`` on, which ``diversity`` > 0 leads away from each other. ``start``: an image ``(C, H, W)`` in
    [0, 1] to begin with, instead of noise; its size is kept; otherwise it is ``size_px``.
    ``on_step(done, steps)`` is called after each step with the sums over all images. Everything else is a
    field of `proxygrad.settings.Settings`: ``preset``, ``steps``, ``parameterization``, …

    Raises `BadRequest` errors for what the network does not have, `pydantic.ValidationError` for settings
    out of their limits, and `LaneError`, naming the objective, when an image leaves finite numbers.
    """
    asked = [objectives] if isinstance(objectives, Objective) else list(objectives)
    slopes = slope if isinstance(slope, Sequence) else [slope] * len(asked)
    lanes = [
        lane
        for objective, own in zip(asked, slopes, strict=True)
        for lane in _lanes(network, objective, _settings(settings, own), images, diversity, start)
    ]
    _run(network, lanes, on_step, max_lanes)
    return [_outcome(network, lane) for lane in lanes]


def _settings(given: dict[str, Any], slope: float | None) -> Settings:
    return Settings.model_validate(given if slope is None else {**given, "slope": slope}).completed()


def _lanes(
    network: Network,
    objective: Objective,
    settings: Settings,
    images: int,
    diversity: float,
    start: Tensor | None,
) -> list[Lane]:
    size = _size(network, settings, start)
    completed = objective.at({layer: network.layer_shape(layer, size) for layer in objective.layers})
    family = Family(diversity) if diversity > 0 else None
    seeds = range(settings.seed, settings.seed + images)
    return [Lane(settings.model_copy(update={"seed": seed}), completed, start, family) for seed in seeds]


def _size(network: Network, settings: Settings, start: Tensor | None) -> tuple[int, int]:
    """Height and width in pixels."""
    if start is not None:
        return start.shape[1], start.shape[2]
    _, height, width = network.input_shape
    return (settings.size_px, settings.size_px) if settings.size_px else (height, width)


def _run(
    network: Network,
    lanes: list[Lane],
    on_step: Callable[[int, int], None] | None,
    max_lanes: int,
) -> None:
    waiting, groups = list(lanes), dict[GroupKey, Group]()
    total = sum(lane.settings.steps for lane in lanes)
    while waiting or groups:
        kin: Family | None = None  # of one family all join at the same step
        while waiting and (_running(groups) < max_lanes or (kin is not None and waiting[0].family is kin)):
            lane = waiting.pop(0)
            key = GroupKey.of(network, lane, _size(network, lane.settings, lane.start))
            groups.setdefault(key, Group(key)).join(lane)
            kin = lane.family
        for group in list(groups.values()):
            group.step()
            if not group.lanes:
                del groups[group.key]
        if on_step is not None:
            on_step(sum(lane.step for lane in lanes), total)


def _running(groups: dict[GroupKey, Group]) -> int:
    return sum(len(group.lanes) for group in groups.values())


def _outcome(network: Network, lane: Lane) -> Outcome:
    if lane.error is not None:
        raise lane.error
    if lane.image is None:
        raise ProxyGradError("a lane that ended without an error has an image")
    return Outcome(
        image=lane.image.to("cpu", torch.float32),
        achieved_activation=measure(network, lane.objective, lane.image),
        start_activation=lane.curve[0],
        curve=tuple(lane.curve),
        stuck=lane.stuck,
        settings=lane.settings,
        objective=lane.objective,
    )
