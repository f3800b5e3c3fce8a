"""`maximize`: one call for a notebook, on the same engine parts as the service."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from proxygrad.engine.capacity import DEFAULT_MAX_LANES
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import DiversityGroup, Lane, MethodOverrides, Trial, falls
from proxygrad.engine.rendering import first_image, is_stuck, measure, start_results
from proxygrad.errors import InvalidRequest
from proxygrad.maximization.arguments import (
    check_diversity,
    check_start,
    seeds_of,
    settings_of,
    single_start,
    slopes_of,
    starts_of,
)
from proxygrad.maximization.own_parts import OwnParts, ParameterizationLike, UpdateLike, split_parts
from proxygrad.maximization.parsing import ObjectiveLike, as_objectives, is_single
from proxygrad.maximization.progress import OnStep, progress_bar
from proxygrad.maximization.visualization import Visualization, VisualizationList
from proxygrad.networks.ambient import differentiable
from proxygrad.networks.network import Network
from proxygrad.networks.preprocessing import preprocessing_of
from proxygrad.objectives.base import Objective
from proxygrad.parameterizations import Maco
from proxygrad.precision import Precision
from proxygrad.spec.settings import AscentSettings
from proxygrad.transforms import Transform

Start = Tensor | np.ndarray[Any, Any]


@overload
def maximize(
    network: Network | nn.Module,
    objectives: ObjectiveLike,
    *,
    slope: float | Literal["auto"] | None = None,
    images: Literal[1] = 1,
    seed: int = 0,
    start: Start | None = None,
    parameterization: ParameterizationLike | None = None,
    update: UpdateLike | None = None,
    transform: Transform | None = None,
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
    slope: float | Literal["auto"] | Sequence[float | Literal["auto"]] | None = None,
    images: int = 1,
    seed: int | Sequence[int] = 0,
    diversity: float = 0.0,
    start: Start | Sequence[Start] | None = None,
    parameterization: ParameterizationLike | None = None,
    update: UpdateLike | None = None,
    transform: Transform | None = None,
    magnitude: Tensor | None = None,
    progress: bool | None = None,
    on_step: OnStep | None = None,
    max_lanes: int = DEFAULT_MAX_LANES,
    precision: Precision = "auto",
    **settings: Any,
) -> VisualizationList: ...


@differentiable()  # whatever the caller's modes are
def maximize(  # noqa: PLR0913, each of them named
    network: Network | nn.Module,
    objectives: ObjectiveLike | Sequence[ObjectiveLike],
    *,
    slope: float | Literal["auto"] | Sequence[float | Literal["auto"]] | None = None,
    images: int = 1,
    seed: int | Sequence[int] = 0,
    diversity: float = 0.0,
    start: Start | Sequence[Start] | None = None,
    parameterization: ParameterizationLike | None = None,
    update: UpdateLike | None = None,
    transform: Transform | None = None,
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
        slope: of the rectifiers in the backward pass, 0 to 1, or ``"auto"``; one for all, or one for each
            objective.
        images: how many images of each objective, with seeds ``seed``, ``seed`` + 1, …
        seed: of the start image and all random views; a list has one for each image of an objective. An image
            with several ``starts`` takes as many seeds, from its own on.
        diversity: leads the images of one objective away from each other; 0.5 shows.
        start: an image ``(C, H, W)`` in [0, 1] to begin with, a tensor or an array, instead of noise; or one
            for each objective. Its size is kept: leave ``size_px`` out.
        parameterization: ``"fourier"``, ``"pixels"``, ``"maco"``, or one of your own: a `Parameterization`
            for images of this shape, or a class or function that makes one of ``(shape, device)``.
        update: ``"normalized"``, ``"sgd"``, ``"adam"``, ``"whitened"``, or an `UpdateRule` of your own.
        transform: what each step sees in place of the image, a `Transform` of your own; it replaces
            ``robustness``.
        magnitude: for ``parameterization="maco"``, the Fourier magnitude ``(C, H, W // 2 + 1)`` of all images
            (`proxygrad.spectrum`); only its shape over frequencies counts. Default 1/f.
        progress: True shows a progress bar, False none; by default a terminal and a notebook show one.
        on_step: called as ``on_step(done, total)`` after each step, with the steps of all images.
        max_lanes: how many images are stepped at once.
        precision: what the steps compute in (`proxygrad.precision.chosen`); what is reported is float32.
        **settings: the other fields of `AscentSettings`: ``preset``, ``steps``, ``step_size``, ``size_px``, …

    Raises:
        InvalidRequest: the network has no such layer, unit or position, or an argument is out of its limits.
            The message has the value and what is valid.
        LaneError: an image left finite numbers; names the objective.
        NetworkError: the network has no backward pass, or returns something else each time.

    >>> import proxygrad as pg
    >>> network = pg.load("digits")
    >>> pg.maximize(network, "fc:3", steps=2, progress=False).image.shape
    torch.Size([1, 32, 32])
    """
    network = as_network(network)
    asked = as_objectives(objectives, network)
    if max_lanes < 1:
        raise InvalidRequest(f"max_lanes {max_lanes} must be at least 1")
    if settings.get("sampler", "ascent") != "ascent":
        raise InvalidRequest(f"sampler {settings['sampler']!r}: proxygrad.sample runs chains")
    named, own = split_parts(parameterization, update)
    if start is not None or diversity > 0:
        beside = "start" if start is not None else f"diversity {diversity:g}"
        settings = {**settings, "starts": single_start(settings, beside)}
    chosen = [_settings({**settings, **named}, each) for each in slopes_of(slope, len(asked))]
    starts = starts_of(start, len(asked))
    seeds = seeds_of(seed, images, chosen[0].starts)
    check_diversity(diversity, len(seeds))
    lanes = [
        lane
        for objective, each, image in zip(asked, chosen, starts, strict=True)
        for lane in _lanes(network, objective, each, seeds, diversity, image)
    ]
    own = replace(own, transform=transform, magnitude=magnitude)
    if not own.empty:
        _give(own, network, lanes)
    with progress_bar(progress, len(asked) * len(seeds), _total_steps(lanes), on_step) as moved:
        run_lanes(network, lanes, moved, max_lanes, precision)
    results = VisualizationList(_visualization(network, lane) for lane in lanes if not lane.dropped)
    single = is_single(objectives) and len(results) == 1 and not isinstance(seed, Sequence)
    return results[0] if single else results


def as_network(given: Any) -> Network:
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


def _settings(given: dict[str, Any], slope: Any) -> AscentSettings:
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
    """One lane for each seed, or several that compete (`Trial`)."""
    if start is not None:
        check_start(start, network.input_shape, settings)
    size = image_size(network, settings, start)
    completed = objective.at({layer: network.layer_shape(layer, size) for layer in objective.layers})
    family = DiversityGroup(diversity) if diversity > 0 else None
    found, falling = list[Lane](), falls(network, completed)
    for first in seeds:
        own = [settings.model_copy(update={"seed": seed}) for seed in range(first, first + settings.starts)]
        lanes = [Lane(each, completed, start, family, falls=falling) for each in own]
        if settings.trial_steps is not None:
            Trial(lanes, settings.trial_steps)
        found += lanes
    return found


def image_size(network: Network, settings: AscentSettings, start: Tensor | None = None) -> tuple[int, int]:
    """Height and width in pixels."""
    if start is not None:
        return start.shape[1], start.shape[2]
    _, height, width = network.input_shape
    return (settings.size_px, settings.size_px) if settings.size_px else (height, width)


def _give(own: OwnParts, network: Network, lanes: Sequence[Lane]) -> None:
    """Give own parts to all lanes: one instance for each image size, since lanes of a batch share it."""
    made = dict[tuple[int, int], MethodOverrides]()
    for lane in lanes:
        size = image_size(network, lane.settings, lane.start)
        if size not in made:
            shape = (network.input_shape[0], *size)
            made[size] = own.overrides(shape, lane.settings.parameterization, network.device)
        lane.overrides = made[size]


def run_lanes(
    network: Network,
    lanes: Sequence[Lane],
    on_step: OnStep,
    max_lanes: int,
    precision: Precision,
) -> None:
    """Step all lanes to their end, at most ``max_lanes`` at once."""
    waiting, groups = list(lanes), dict[GroupKey, Group]()
    total = _total_steps(lanes)
    while waiting or groups:
        kin: DiversityGroup | Trial | None = None  # all of one join at the same step
        while waiting and (_running(groups) < max_lanes or (kin is not None and _kin(waiting[0]) is kin)):
            lane = waiting.pop(0)
            key = GroupKey.of(network, lane, image_size(network, lane.settings, lane.start), precision)
            groups.setdefault(key, Group(key)).join(lane)
            kin = _kin(lane)
        for group in list(groups.values()):
            group.step()
            if not group.lanes:
                del groups[group.key]
        on_step(sum(lane.step for lane in lanes), total)


def _kin(lane: Lane) -> DiversityGroup | Trial | None:
    """What it has in common with others that are to be stepped beside it."""
    return lane.diversity_group or lane.trial


def _total_steps(lanes: Sequence[Lane]) -> int:
    """Steps of all lanes; of those of a trial all but one end with it."""
    trials = {lane.trial for lane in lanes if lane.trial is not None}
    saved = sum((len(each.lanes) - 1) * (each.lanes[0].settings.steps - each.steps) for each in trials)
    return sum(lane.settings.steps for lane in lanes) - saved


def _running(groups: dict[GroupKey, Group]) -> int:
    return sum(len(group.lanes) for group in groups.values())


def _visualization(network: Network, lane: Lane) -> Visualization:
    image, own = lane.finished_image, lane.overrides.parameterization
    achieved = measure(network, lane.objective, image)
    start = measure(network, lane.objective, first_image(network, lane))
    return Visualization(
        image=image.to("cpu", torch.float32),
        activation=achieved,
        start_activation=start,
        curve=tuple(lane.curve),
        stuck=is_stuck(network, lane, start, achieved),
        objective=lane.objective,
        settings=lane.settings,
        dtype=lane.dtype,
        starts=start_results(lane),
        magnitude=own.magnitude.cpu() if isinstance(own, Maco) else None,
    )
