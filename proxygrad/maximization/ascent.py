"""`maximize`: one call for a notebook, on the same engine parts as the service."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from proxygrad.engine.capacity import DEFAULT_MAX_LANES
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import DiversityGroup, Lane
from proxygrad.engine.rendering import first_image, is_stuck, measure
from proxygrad.errors import InvalidRequest, ProxyGradError
from proxygrad.maximization.arguments import (
    check_diversity,
    check_magnitude,
    check_start,
    seeds_of,
    settings_of,
    slopes_of,
    starts_of,
)
from proxygrad.maximization.parsing import ObjectiveLike, as_objectives, is_single
from proxygrad.maximization.progress import OnStep, progress_bar
from proxygrad.maximization.visualization import Visualization, VisualizationList
from proxygrad.networks.network import Network
from proxygrad.networks.preprocessing import preprocessing_of
from proxygrad.objectives.base import Objective
from proxygrad.parameterizations import Maco
from proxygrad.precision import Precision
from proxygrad.spec.settings import AscentSettings

Start = Tensor | np.ndarray[Any, Any]


@overload
def maximize(
    network: Network | nn.Module,
    objectives: ObjectiveLike,
    *,
    slope: float | None = None,
    images: Literal[1] = 1,
    seed: int = 0,
    start: Start | None = None,
    magnitude: Tensor | None = None,
    progress: bool | None = None,
    on_step: OnStep | None = None,
    max_lanes: int = DEFAULT_MAX_LANES,
    precision: Precision = "auto",
    **settings: Any,
) -> Visualization: ...


@overload
def maximize(
    network: Network | nn.Module,
    objectives: ObjectiveLike | Sequence[ObjectiveLike],
    *,
    slope: float | Sequence[float] | None = None,
    images: int = 1,
    seed: int | Sequence[int] = 0,
    diversity: float = 0.0,
    start: Start | Sequence[Start] | None = None,
    magnitude: Tensor | None = None,
    progress: bool | None = None,
    on_step: OnStep | None = None,
    max_lanes: int = DEFAULT_MAX_LANES,
    precision: Precision = "auto",
    **settings: Any,
) -> VisualizationList: ...


def maximize(  # noqa: PLR0913, each of them named
    network: Network | nn.Module,
    objectives: ObjectiveLike | Sequence[ObjectiveLike],
    *,
    slope: float | Sequence[float] | None = None,
    images: int = 1,
    seed: int | Sequence[int] = 0,
    diversity: float = 0.0,
    start: Start | Sequence[Start] | None = None,
    magnitude: Tensor | None = None,
    progress: bool | None = None,
    on_step: OnStep | None = None,
    max_lanes: int = DEFAULT_MAX_LANES,
    precision: Precision = "auto",
    **settings: Any,
) -> Visualization | VisualizationList:
    """Optimize one image for each objective, as one batch where they fit together.

    One objective gives one `Visualization`. A list of objectives, several ``images`` or a list of seeds give
    a list, in the order of the objectives and, for each, of the seeds.

    Args:
        network: a `Network`, or a module of torchvision or timm, which say what input they expect.
        objectives: ``"layer:unit"``, ``"layer:unit@row,column"``, the name of a class, an `Objective`, or a
            function ``{layer: (B, …)} → (B,)`` of activations; or a list of these.
        slope: of the rectifiers in the backward pass, 0 to 1; one for all, or one for each objective.
        images: how many images of each objective, with seeds ``seed``, ``seed`` + 1, …
        seed: of the start image and all random views; a list has one for each image of an objective.
        diversity: leads the images of one objective away from each other; 0.5 shows.
        start: an image ``(C, H, W)`` in [0, 1] to begin with, a tensor or an array, instead of noise; or one
            for each objective. Its size is kept: leave ``size_px`` out.
        magnitude: for ``parameterization="maco"``, the Fourier magnitude ``(C, H, W // 2 + 1)`` of all images
            (`proxygrad.spectrum`); only its shape over frequencies counts. Default 1/f.
        progress: True shows a progress bar, False none; by default a terminal and a notebook show one.
        on_step: called as ``on_step(done, total)`` after each step, with the steps of all images.
        max_lanes: how many images are stepped at once.
        precision: what the steps compute in (`proxygrad.precision.chosen`); what is reported is float32.
        **settings: the fields of `AscentSettings`: ``preset``, ``steps``, ``parameterization``, …

    Raises:
        InvalidRequest: the network has no such layer, unit or position, or an argument is out of its limits.
            The message has the value and what is valid.
        LaneError: an image left finite numbers; names the objective.

    >>> import proxygrad as pg
    >>> network = pg.load("digits")
    >>> pg.maximize(network, "fc:3", steps=2, progress=False).image.shape
    torch.Size([1, 32, 32])
    """
    network = _network(network)
    asked = as_objectives(objectives, network)
    slopes, starts = slopes_of(slope, len(asked)), starts_of(start, len(asked))
    if max_lanes < 1:
        raise InvalidRequest(f"max_lanes {max_lanes} must be at least 1")
    seeds = seeds_of(seed, images)
    check_diversity(diversity, len(seeds))
    chosen = [_settings(settings, own) for own in slopes]
    for own, image in zip(chosen, starts, strict=True):
        if image is not None:
            check_start(image, network.input_shape, own)
    lanes = [
        lane
        for objective, own, image in zip(asked, chosen, starts, strict=True)
        for lane in _lanes(network, objective, own, seeds, diversity, image)
    ]
    if magnitude is not None:
        _share_magnitude(network, lanes, magnitude)
    total = sum(lane.settings.steps for lane in lanes)
    with progress_bar(progress, len(lanes), total, on_step) as moved:
        _run(network, lanes, moved, max_lanes, precision)
    results = VisualizationList(_visualization(network, lane) for lane in lanes)
    single = is_single(objectives) and len(results) == 1 and not isinstance(seed, Sequence)
    return results[0] if single else results


def _network(given: Any) -> Network:
    """A raw module as a network, where it says itself what input it expects."""
    if isinstance(given, Network):
        return given
    if not isinstance(given, nn.Module):
        raise InvalidRequest(
            f"network {given!r} is of type {type(given).__name__}; valid: a proxygrad.Network, as "
            "proxygrad.load('digits') or proxygrad.Network(module, input_shape=(C, H, W))"
        )
    if preprocessing_of(given) is None:
        raise InvalidRequest(
            f"module {type(given).__name__} does not say what input it expects; make it a network first: "
            "proxygrad.Network(module, input_shape=(C, H, W), mean=…, std=…)"
        )
    return Network(given, name=type(given).__name__)


def _settings(given: dict[str, Any], slope: float | None) -> AscentSettings:
    keywords = [name for name in inspect.signature(maximize).parameters if name != "settings"]
    return settings_of(given if slope is None else {**given, "slope": slope}, keywords)


def _lanes(
    network: Network,
    objective: Objective,
    settings: AscentSettings,
    seeds: Sequence[int],
    diversity: float,
    start: Tensor | None,
) -> list[Lane]:
    """One lane for each seed."""
    size = _size(network, settings, start)
    completed = objective.at({layer: network.layer_shape(layer, size) for layer in objective.layers})
    family = DiversityGroup(diversity) if diversity > 0 else None
    if family is not None and (settings.solo or not network.batch_first):
        why = "solo" if settings.solo else f"layers of model {network.name!r} that have no batch in front"
        raise InvalidRequest(f"diversity {diversity:g} needs images in one batch, which {why} rules out")
    return [Lane(settings.model_copy(update={"seed": seed}), completed, start, family) for seed in seeds]


def _size(network: Network, settings: AscentSettings, start: Tensor | None) -> tuple[int, int]:
    """Height and width in pixels."""
    if start is not None:
        return start.shape[1], start.shape[2]
    _, height, width = network.input_shape
    return (settings.size_px, settings.size_px) if settings.size_px else (height, width)


def _share_magnitude(network: Network, lanes: Sequence[Lane], magnitude: Any) -> None:
    """Lanes of one size get one parameterization, or they could not be stepped together."""
    made = dict[tuple[int, int], Maco]()
    for lane in lanes:
        size = _size(network, lane.settings, lane.start)
        if size not in made:
            shape = (network.input_shape[0], *size)
            check_magnitude(magnitude, shape, lane.settings.parameterization)
            made[size] = Maco(shape, network.device, magnitude.detach().cpu())
        lane.maco = made[size]


def _run(
    network: Network,
    lanes: Sequence[Lane],
    on_step: OnStep,
    max_lanes: int,
    precision: Precision,
) -> None:
    """Step all lanes to their end, at most ``max_lanes`` at once."""
    waiting, groups = list(lanes), dict[GroupKey, Group]()
    total = sum(lane.settings.steps for lane in lanes)
    while waiting or groups:
        kin: DiversityGroup | None = None  # of one diversity group all join at the same step
        while waiting and (_running(groups) < max_lanes or (kin is not None and waiting[0].family is kin)):
            lane = waiting.pop(0)
            key = GroupKey.of(network, lane, _size(network, lane.settings, lane.start), precision)
            groups.setdefault(key, Group(key)).join(lane)
            kin = lane.family
        for group in list(groups.values()):
            group.step()
            if not group.lanes:
                del groups[group.key]
        on_step(sum(lane.step for lane in lanes), total)


def _running(groups: dict[GroupKey, Group]) -> int:
    return sum(len(group.lanes) for group in groups.values())


def _visualization(network: Network, lane: Lane) -> Visualization:
    if lane.error is not None:
        raise lane.error
    if lane.image is None:
        raise ProxyGradError("a lane that ended without an error has an image")
    achieved = measure(network, lane.objective, lane.image)
    start = measure(network, lane.objective, first_image(network, lane))
    return Visualization(
        image=lane.image.to("cpu", torch.float32),
        activation=achieved,
        start_activation=start,
        curve=tuple(lane.curve),
        stuck=is_stuck(lane, start, achieved),
        objective=lane.objective,
        settings=lane.settings,
        dtype=lane.dtype,
        magnitude=None if lane.maco is None else lane.maco.magnitude.cpu(),
    )
