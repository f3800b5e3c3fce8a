"""One call for a notebook: images that maximize objectives, on the same engine parts as the service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from proxygrad.engine.capacity import DEFAULT_MAX_LANES
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import DiversityGroup, Lane
from proxygrad.engine.rendering import first_image, is_stuck, measure
from proxygrad.errors import InvalidRequest, ProxyGradError
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.parameterizations import Maco
from proxygrad.precision import Arithmetic, Precision
from proxygrad.questions import check_images, check_magnitude, check_start, objectives_of, slopes_of
from proxygrad.spec.settings import AscentSettings


@dataclass(frozen=True)
class Visualization:
    """One image and the truth about it.

    ``image``: ``(C, H, W)`` float32 in [0, 1] on the CPU. ``achieved_activation``: of that image, alone on
    the network itself in float32, without proxy or views. ``curve``: the activation before each step and
    after the last one. ``stuck``: ascent got nowhere, as `proxygrad.engine.rendering.is_stuck` has it.
    ``settings`` and ``objective`` are those used, with nothing left open; ``dtype`` is what the steps
    computed in; ``magnitude`` is the one that was given, as used: float32, scaled to unit variance.
    """

    image: Tensor
    achieved_activation: float
    start_activation: float
    curve: tuple[float, ...]
    stuck: bool
    settings: AscentSettings
    objective: Objective
    dtype: Arithmetic
    magnitude: Tensor | None = None


def maximize(  # noqa: PLR0913, each of them named
    network: Network,
    objectives: Objective | Sequence[Objective],
    *,
    slope: float | Sequence[float] | None = None,
    images: int = 1,
    diversity: float = 0.0,
    start: Tensor | None = None,
    magnitude: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
    max_lanes: int = DEFAULT_MAX_LANES,
    precision: Precision = "auto",
    **settings: Any,
) -> list[Visualization]:
    """Optimize one image for each objective, as one batch where they fit together; outcomes in that order.

    ``slope``: one for all, or one for each objective. ``images``: so many for each objective, with seeds from
    ``seed`` on, which ``diversity`` > 0 leads away from each other. ``start``: an image ``(C, H, W)`` in
    [0, 1] to begin with, instead of noise; its size is kept, and ``size_px`` is left out.
    ``magnitude``: for ``parameterization="maco"``, of all images, ``(C, H, W // 2 + 1)``, such as that of
    natural images (`proxygrad.parameterizations.spectrum`); only its shape over frequencies counts. Default
    1/f.
    ``on_step(done, steps)`` is called after each step with the sums over all images. ``precision``: what the
    steps compute in (`proxygrad.precision.chosen`); what is reported is float32. Everything else is a
    field of `proxygrad.spec.settings.AscentSettings`: ``preset``, ``steps``, ``parameterization``, …;
    ``robustness`` may also be a `proxygrad.spec.robustness.Robustness`.

    Raises `InvalidRequest` errors for what cannot be asked of the network, `pydantic.ValidationError` for
    settings out of their limits, and `LaneError`, naming the objective, when an image leaves finite numbers.
    """
    asked = objectives_of(objectives)
    slopes = slopes_of(slope, len(asked))
    if max_lanes < 1:
        raise InvalidRequest(f"max_lanes {max_lanes} must be at least 1")
    chosen = [_settings(settings, own) for own in slopes]
    check_images(images, diversity, chosen[0].seed)
    if start is not None:
        check_start(start, network.input_shape, chosen[0])
    lanes = [
        lane
        for objective, own in zip(asked, chosen, strict=True)
        for lane in _lanes(network, objective, own, images, diversity, start)
    ]
    if magnitude is not None:
        maco = _maco(network, lanes[0].settings, start, magnitude)
        for lane in lanes:
            lane.maco = maco
    _run(network, lanes, on_step, max_lanes, precision)
    return [_outcome(network, lane) for lane in lanes]


def _settings(given: dict[str, Any], slope: float | None) -> AscentSettings:
    return AscentSettings.model_validate(given if slope is None else {**given, "slope": slope}).completed()


def _lanes(
    network: Network,
    objective: Objective,
    settings: AscentSettings,
    images: int,
    diversity: float,
    start: Tensor | None,
) -> list[Lane]:
    """So many lanes for one objective; they differ in their seeds."""
    size = _size(network, settings, start)
    completed = objective.at({layer: network.layer_shape(layer, size) for layer in objective.layers})
    family = DiversityGroup(diversity) if diversity > 0 else None
    if family is not None and (settings.solo or not network.batch_first):
        why = "solo" if settings.solo else f"layers of model {network.name!r} that have no batch in front"
        raise InvalidRequest(f"diversity {diversity:g} needs images in one batch, which {why} rules out")
    seeds = range(settings.seed, settings.seed + images)
    return [Lane(settings.model_copy(update={"seed": seed}), completed, start, family) for seed in seeds]


def _size(network: Network, settings: AscentSettings, start: Tensor | None) -> tuple[int, int]:
    """Height and width in pixels."""
    if start is not None:
        return start.shape[1], start.shape[2]
    _, height, width = network.input_shape
    return (settings.size_px, settings.size_px) if settings.size_px else (height, width)


def _maco(network: Network, settings: AscentSettings, start: Tensor | None, magnitude: Any) -> Maco:
    shape = (network.input_shape[0], *_size(network, settings, start))
    check_magnitude(magnitude, shape, settings.parameterization)
    return Maco(shape, network.device, magnitude.detach().cpu())


def _run(
    network: Network,
    lanes: list[Lane],
    on_step: Callable[[int, int], None] | None,
    max_lanes: int,
    precision: Precision,
) -> None:
    waiting, groups = list(lanes), dict[GroupKey, Group]()
    total = sum(lane.settings.steps for lane in lanes)
    while waiting or groups:
        kin: DiversityGroup | None = None  # of one family all join at the same step
        while waiting and (_running(groups) < max_lanes or (kin is not None and waiting[0].family is kin)):
            lane = waiting.pop(0)
            key = GroupKey.of(network, lane, _size(network, lane.settings, lane.start), precision)
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


def _outcome(network: Network, lane: Lane) -> Visualization:
    if lane.error is not None:
        raise lane.error
    if lane.image is None:
        raise ProxyGradError("a lane that ended without an error has an image")
    achieved = measure(network, lane.objective, lane.image)
    start = measure(network, lane.objective, first_image(network, lane))
    return Visualization(
        image=lane.image.to("cpu", torch.float32),
        achieved_activation=achieved,
        start_activation=start,
        curve=tuple(lane.curve),
        stuck=is_stuck(lane, start, achieved),
        settings=lane.settings,
        objective=lane.objective,
        dtype=lane.dtype,
        magnitude=None if lane.maco is None else lane.maco.magnitude.cpu(),
    )
