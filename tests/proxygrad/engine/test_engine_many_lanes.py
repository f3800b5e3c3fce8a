"""Sixty-four lanes that join and leave at random: each is the lane alone, but for rounding."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.engine.engine import Engine
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import Lane
from proxygrad.images import decode_png
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Channel, Neuron
from proxygrad.spec import Spec
from proxygrad.spec.settings import AscentSettings

LANES, SIZE = 64, (32, 32)


class Block(nn.Module):
    """Two convolutions around a shortcut, as in the residual networks for 32 px (He et al. 2016)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels * stride
        self.conv1 = nn.Conv2d(channels, inner, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:  # a shortcut without weights: every other pixel, zeros for the new channels
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return functional.relu(x + y)


class Residual(nn.Module):
    """Three stages for images of 32 px; random weights, with running statistics that do something."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, 1, 1)
        self.stages = nn.Sequential(Block(8, 1), Block(8, 2), Block(16, 2))
        for each in self.modules():
            if (
                isinstance(each, nn.BatchNorm2d)
                and each.running_var is not None
                and each.running_mean is not None
            ):
                each.running_var.uniform_(0.5, 2.0)
                each.running_mean.normal_(0, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stages(functional.relu(self.conv(x)))
        return y


def questions() -> list[tuple[AscentSettings, Channel | Neuron]]:
    """Of each lane: steps, seed, slope and unit of its own; every other one sees moved views."""
    dice = random.Random(0)
    asked = []
    for seed in range(LANES):
        settings = AscentSettings(
            preset="max",
            steps=dice.randint(1, 9),
            seed=seed,
            slope=dice.choice([0.0, 0.02, 0.05, 0.2]),
            robustness="standard" if seed % 2 else "none",
        ).completed()
        unit = dice.randrange(32)
        channel, neuron = Channel("stages", unit), Neuron("stages", unit, (4, 4))
        asked.append((settings, channel if seed % 3 else neuron))
    return asked


def alone(network: Network, settings: AscentSettings, objective: Channel | Neuron) -> Lane:
    lane = Lane(settings, objective)
    group = Group(GroupKey.of(network, lane, SIZE))
    group.join(lane)
    while group.lanes:
        group.step()
    return lane


def test_each_of_64_lanes_that_come_and_go_is_the_lane_alone() -> None:
    """Half a level of an 8-bit image, after up to nine steps in batches of one to dozens of lanes."""
    network, dice = Network(Residual(), (3, *SIZE), name="residual"), random.Random(1)
    asked = questions()
    waiting = [Lane(*each) for each in asked]
    lanes, group, sizes = list(waiting), Group(GroupKey.of(network, waiting[0], SIZE)), set[int]()
    while waiting or group.lanes:
        for _ in range(dice.randint(0, 9)):
            if waiting:
                group.join(waiting.pop(dice.randrange(len(waiting))))
        if group.lanes:
            sizes.add(len(group.lanes))
            group.step()
    assert max(sizes) > 16
    assert len(sizes) > 8
    for lane, own in zip(lanes, asked, strict=True):
        expected = alone(network, *own)
        assert (lane.error, lane.step) == (None, own[0].steps)
        assert lane.image is not None
        assert expected.image is not None
        torch.testing.assert_close(lane.image, expected.image, rtol=0, atol=0.5 / 255)
        assert lane.curve == pytest.approx(expected.curve, rel=1e-3, abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_64_lanes_of_resnet50_on_cuda() -> None:
    """The engine finds their number by free memory; four of them again alone, which differ by rounding."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    network = Network(resnet50(weights=None), (3, 224, 224), name="resnet50", device="cuda")
    dice = random.Random(2)
    asked = [
        Spec(
            model="resnet50", layer="layer3", unit=dice.randrange(1024), seed=seed, steps=dice.randint(2, 24)
        )
        for seed in range(LANES)
    ]
    with Engine() as engine:
        tickets = [engine.submit(network, each) for each in asked]
        found = [ticket.result(300) for ticket in tickets]
        again = [engine.submit(network, each).result(60) for each in asked[:4]]
    for spec, rendering in zip(asked, found, strict=True):
        assert rendering.result.steps_done == spec.steps
        assert rendering.result.achieved_activation > rendering.result.start_activation
    for one, other in zip(found, again, strict=False):
        torch.testing.assert_close(decode_png(one.png), decode_png(other.png), rtol=0, atol=8 / 255)
        assert one.result.achieved_activation == pytest.approx(other.result.achieved_activation, rel=0.02)
