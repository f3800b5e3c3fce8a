"""Batch sizes: the same bits alone and among others, whatever the others do, or one lane at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad.engine.batch_sizes import BatchSizes, Rounding
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import DiversityGroup, Lane
from proxygrad.engine.step import AscentStep
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.objectives.directions import Direction
from proxygrad.objectives.units import Channel, Neuron
from proxygrad.optim.gradient_activations import GAFS
from proxygrad.optim.update_rules import UPDATES
from proxygrad.spec.settings import AscentSettings
from tests.support.networks import small

STEPS = 5
CPU = torch.device("cpu")


def lane(seed: int, objective: Objective | None = None, **settings: Any) -> Lane:
    given = {"steps": STEPS, "seed": seed, "preset": "max", **settings}
    return Lane(AscentSettings.model_validate(given).completed(), objective or Channel("conv2", seed % 6))


def strangers(**settings: Any) -> list[Lane]:
    """15 of other units, slopes, lengths and views, that share what a group shares."""
    own: list[dict[str, Any]] = [
        {"steps": 2 + number % 7, "slope": (0.0, 0.02, 0.3)[number % 3], **settings} for number in range(15)
    ]
    for number, each in enumerate(own):
        if number % 4 == 0:
            each["robustness"] = "standard"
    return [lane(100 + number, **each) for number, each in enumerate(own)]


def stepped(network: Network, joining: Sequence[tuple[int, Lane]], size: tuple[int, int] = (16, 16)) -> Group:
    """All lanes to their end; each joins after as many steps as its number."""
    waiting = sorted(joining, key=lambda each: each[0])
    group = Group(GroupKey.of(network, waiting[0][1], size))
    done = 0
    while waiting or group.lanes:
        while waiting and waiting[0][0] <= done:
            group.join(waiting.pop(0)[1])
        if group.lanes:
            group.step()
        done += 1
    return group


def outcome(of: Lane) -> tuple[list[float], float, bytes]:
    return of.curve, of.steepest, of.finished_image.contiguous().numpy().tobytes()


@pytest.fixture(scope="module")
def network() -> Network:
    return small()


def ways() -> Iterator[dict[str, Any]]:
    for parameters, update, gaf in product(("pixels", "fourier", "maco"), UPDATES, GAFS):
        if update == "whitened" and parameters != "pixels":
            continue
        yield {"parameterization": parameters, "update": update, "gaf": gaf, "step_size": 0.05}


@pytest.mark.parametrize("way", list(ways()), ids=lambda way: "-".join(map(str, list(way.values())[:3])))
def test_every_way_to_move_gives_the_bits_of_the_lane_alone(network: Network, way: dict[str, Any]) -> None:
    mine = {**way, "slope": 0.05, "robustness": "standard"}
    if way["parameterization"] == "pixels":
        mine |= {"total_variation": 0.1, "l2": 0.05, "blur_px": 0.4}
    size = (15, 15)  # odd: rows end where no vector of a CPU does
    first, second = (lane(7, **mine) for _ in range(2))
    stepped(network, [(0, first)], size)
    stepped(network, [(0, each) for each in strangers(**way)[:5]] + [(2, second)], size)
    assert outcome(first) == outcome(second)


@pytest.mark.parametrize("objective", [Neuron("conv2", 2), Direction("conv2", (1, -2, 3, 0, 1, 1))])
def test_a_lane_among_15_strangers_or_late_or_in_slices_has_the_bits_of_the_lane_alone(
    network: Network, objective: Objective
) -> None:
    completed = objective.at({"conv2": network.layer_shape("conv2", (16, 16))})
    alone, among, late, sliced = (lane(3, completed, slope=0.1, steps=9) for _ in range(4))
    stepped(network, [(0, alone)])
    stepped(
        network,
        [*((0, each) for each in strangers()[:7]), (0, among), *((0, each) for each in strangers()[7:])],
    )
    stepped(network, [*((0, each) for each in strangers()), (3, late)])
    group = Group(GroupKey.of(network, sliced, (16, 16)))
    for each in (*strangers(), sliced):
        group.join(each)
    group.capacity.halve(7)
    while group.lanes:
        group.step()
    assert group.capacity.limit == 3
    assert outcome(alone) == outcome(among) == outcome(late) == outcome(sliced)


def test_lanes_that_differ_from_each_other_do_not_depend_on_strangers(network: Network) -> None:
    apart, together = list[Lane](), list[Lane]()
    for made in (apart, together):
        kin = DiversityGroup(0.5)
        made += [lane(seed, Channel("conv2", 1), slope=0.05) for seed in range(3)]
        for each in made:
            each.diversity_group = kin
    stepped(network, [(0, each) for each in apart])
    stepped(network, [(0, each) for each in (*strangers()[:6], *together, *strangers()[6:])])
    assert [outcome(each) for each in apart] == [outcome(each) for each in together]
    without = lane(0, Channel("conv2", 1), slope=0.05)
    stepped(network, [(0, without)])
    assert outcome(apart[0]) != outcome(without)


def test_a_lane_that_needs_a_guard_gives_none_to_others(network: Network) -> None:
    first, second = lane(1, slope=0.1), lane(1, slope=0.1)
    stepped(network, [(0, first)])
    other = lane(2, slope=0.1)
    other.guarded = True
    stepped(network, [(0, other), (0, second)])
    assert not second.guarded
    assert outcome(first) == outcome(second)


class Shaped(nn.Module):
    """Adds a little where a batch is larger than ``least``: what begins with so many images."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.conv = nn.Conv2d(3, 4, 3)
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if len(x) >= self.least:
            y = y + 1e-4 * y.mean(dim=0, keepdim=True)
        return self.end(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("least", [2, 5, 7])
def test_what_begins_with_some_number_of_images_is_seen(least: int) -> None:
    network = Network(Shaped(least), (3, 8, 8))
    objective = Channel("end", 1)
    alone, among = lane(3, objective), lane(3, objective)
    stepped(network, [(0, alone)], (8, 8))
    others = [lane(seed, objective) for seed in range(20, 31)]
    group = stepped(network, [(0, each) for each in (*others, among)], (8, 8))
    assert outcome(alone) == outcome(among)
    assert network.batching.alone or group._sizes.fitting(12) == 4


def scripted(wrong: set[int], seen: list[int]) -> BatchSizes:
    """Of a network that rounds in another way in batches of these sizes."""

    def trial(images: Tensor, slopes: Sequence[float]) -> list[Rounding]:
        seen.append(len(images))
        extra = 1e-6 if len(images) in wrong else 0.0
        return [
            Rounding((row.sum().view(1) + extra,), row + slope)
            for row, slope in zip(images.split(1), slopes, strict=True)
        ]

    return BatchSizes(trial, (1, 4, 4), CPU, {})


def test_sizes_are_tried_once_when_they_are_needed() -> None:
    seen: list[int] = []
    sizes = scripted({6, 16}, seen)
    assert sizes.fitting(1) == 1
    assert seen == []
    assert sizes.split(6) == [4, 2]
    assert sorted(seen) == [1] * 8 + [2] * 4 + [4] * 2 + [6]
    assert sizes.split(6) == [4, 2]
    assert sizes.split(16) == [8, 8]
    assert sizes.split(40) == [8] * 5
    assert len(seen) == 8 + 4 + 2 + 1 + 8 + 1 + 1
    assert scripted(set(range(2, 17)), seen).split(3) == [1, 1, 1]


def test_a_place_in_the_batch_that_rounds_in_another_way_is_seen() -> None:
    def trial(images: Tensor, slopes: Sequence[float]) -> list[Rounding]:
        rows = [Rounding((row,), row.clone()) for row in images.split(1)]
        rows[-1].gradient[..., -1] += 1e-7 if len(rows) == 4 else 0
        return rows

    assert BatchSizes(trial, (1, 4, 4), CPU, {}).split(7) == [7]
    assert BatchSizes(trial, (1, 4, 4), CPU, {}).split(4) == [2, 2]


def test_large_images_share_no_large_batch() -> None:
    assert BatchSizes(lambda images, slopes: [], (3, 224, 224), CPU, {}).most == 4
    assert BatchSizes(lambda images, slopes: [], (3, 1024, 1024), CPU, {}).most == 1
    assert BatchSizes(lambda images, slopes: [], (3, 32, 32), CPU, {}).most == 16


def test_copies_that_fill_a_batch_change_nothing(network: Network) -> None:
    """As on CUDA, where each pass has the same shape."""
    own = [lane(seed, slope=seed / 10) for seed in range(3)]
    step = Group(GroupKey.of(network, own[0], (16, 16)))._step
    params = torch.rand((3, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    draws = [each.view((16, 16), 3) for each in own]
    filled = AscentStep(step.read, step.parameterization, step.rule, least=8)
    bare, more = (each.evaluate(own, params, draws) for each in (step, filled))
    assert torch.equal(bare.gradient, more.gradient)
    assert torch.equal(bare.activations, more.activations)
