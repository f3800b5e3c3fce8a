"""What is reported is measured on the network itself, whatever the steps saw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import Lane
from proxygrad.engine.rendering import ROUNDING, first_image, is_stuck, render
from proxygrad.images import decode_png
from proxygrad.maximization.ascent import maximize
from proxygrad.maximization.visualization import Visualization
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Channel, Logit, Neuron
from proxygrad.spec import Spec
from proxygrad.spec.settings import AscentSettings
from tests.support.networks import Dead, small

SIZE = (16, 16)


def finished(network: Network, **settings: object) -> Lane:
    given = AscentSettings.model_validate({"steps": 4, "seed": 3, **settings}).completed()
    lane = Lane(given, Neuron("conv2", 2, (4, 4)))
    group = Group(GroupKey.of(network, lane, SIZE))
    group.join(lane)
    while group.lanes:
        group.step()
    return lane


@pytest.mark.parametrize("parameterization", ["pixels", "fourier", "maco"])
@pytest.mark.parametrize("robustness", ["none", "standard"])
def test_start_and_end_are_measured_and_not_taken_from_the_steps(
    parameterization: str, robustness: str
) -> None:
    network = small()
    lane = finished(network, parameterization=parameterization, robustness=robustness)
    begun_at, seen = first_image(network, lane), lane.curve[0]
    lane.curve[0] = 99.0  # as far off as a coarse number format might be
    spec = Spec(model="small", layer="conv2", unit=2, objective="neuron", steps=4, seed=3)
    result = render(network, spec, [lane], ran_s=1.0).result
    with torch.no_grad():
        expected = network.activations(begun_at.unsqueeze(0), "conv2")[0, 2, 4, 4]
    assert result.start_activation == float(expected) == pytest.approx(seen, rel=1e-4, abs=1e-6)
    assert result.curve[0] == 99.0
    assert not result.stuck


def test_the_start_is_a_given_image_where_one_was_given() -> None:
    start = torch.rand((3, 20, 12), generator=torch.Generator().manual_seed(0))
    for parameterization, tolerance in (("pixels", 0.0), ("fourier", 2e-3)):
        lane = Lane(
            AscentSettings.model_validate({"parameterization": parameterization}), Channel("conv2", 0), start
        )
        lane.image = torch.zeros_like(start)
        torch.testing.assert_close(first_image(small(), lane), start, rtol=0, atol=tolerance)


def test_the_achieved_activation_is_of_the_bytes_and_stuck_is_of_the_image() -> None:
    """`Dead` on gray is 0 with no gradient: stuck, also where its PNG is another image by 8-bit rounding."""
    network = Network(Dead(), (1, 8, 8), name="dead")
    spec = Spec(model="dead", layer="relu", unit=0, slope=0.0, steps=3)
    outcome = maximize(network, Channel("relu", 0), slope=0.0, steps=3)
    lane = Lane(outcome.settings, outcome.objective, curve=[0.0] * 4, image=outcome.image)
    rendering = render(network, spec, [lane], ran_s=0.5)
    assert rendering.result.stuck
    assert not torch.equal(decode_png(rendering.png), outcome.image)
    assert (rendering.result.achieved_activation, rendering.result.start_activation) == (0.0, 0.0)


class Falling(nn.Module):
    """``f(20 · mean(x) + shift)``: one unit behind one activation, on gray at ``f(10 + shift)``."""

    def __init__(self, activation: nn.Module, shift: float) -> None:
        super().__init__()
        self.unit = nn.Conv2d(1, 1, 8)
        with torch.no_grad():
            self.unit.weight.fill_(20 / 64)
            self.unit.bias.fill_(shift)  # type: ignore[union-attr]
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        unit: Tensor = self.activation(self.unit(x))
        return unit


class Negative(nn.Sequential):
    """Minus what its activation returns."""

    def forward(self, x: Tensor) -> Tensor:
        unit: Tensor = -super().forward(x)  # type: ignore[no-untyped-call]
        return unit


def climb(activation: nn.Module, shift: float, slope: float) -> Visualization:
    network = Network(Falling(activation, shift), (1, 8, 8))
    return maximize(network, Neuron("activation", 0), preset="max", slope=slope, steps=48)


@pytest.mark.parametrize("activation", [nn.Hardswish(), nn.GELU(), nn.SiLU(), nn.Mish()], ids=repr)
def test_plain_ascent_that_slides_down_the_falling_side_is_stuck_and_the_proxy_is_not(
    activation: nn.Module,
) -> None:
    """It begins at -2, where the activation falls: its own gradient leads to the far left, up to 0."""
    plain, proxy = (climb(activation, shift=-12.0, slope=slope) for slope in (0.0, 0.05))
    assert plain.start_activation < plain.activation <= 0  # it did rise
    assert plain.stuck
    assert proxy.activation == pytest.approx(8.0, rel=1e-3)
    assert not proxy.stuck


def test_a_dead_rectifier_is_stuck_and_one_that_lives_is_not() -> None:
    assert climb(nn.ReLU(), shift=-14.0, slope=0.0).stuck
    assert not climb(nn.ReLU(), shift=-14.0, slope=0.05).stuck
    assert not climb(nn.ReLU(), shift=-9.0, slope=0.0).stuck


def test_a_unit_that_stays_below_0_but_rises_is_not_stuck() -> None:
    outcome = climb(nn.Identity(), shift=-40.0, slope=0.0)
    assert outcome.activation == pytest.approx(-20.0)
    assert not outcome.stuck


def test_what_is_made_small_may_end_at_0() -> None:
    network = Network(Falling(nn.ReLU(), -9.0), (1, 8, 8))
    outcome = maximize(network, -Channel("activation", 0), slope=0.0, steps=24)
    assert outcome.start_activation == pytest.approx(-1.0, abs=0.2)
    assert outcome.activation == 0.0
    assert not outcome.stuck


@pytest.mark.parametrize(
    "end",
    [
        nn.LogSigmoid(),
        Negative(nn.ReLU()),
        Negative(nn.Softplus()),
        nn.Hardtanh(-9.0, 0.0),
        Negative(nn.GELU()),
    ],
    ids=repr,
)
def test_a_unit_that_rose_to_the_best_there_is_is_not_stuck(end: nn.Module) -> None:
    """None of them ever exceeds 0, but for the last, which ends at 0.17."""
    rising = isinstance(end, nn.LogSigmoid | nn.Hardtanh)
    network = Network(Falling(end, -12.0 if rising else -8.0), (1, 8, 8))
    found = maximize(network, Neuron("activation", 0), preset="max", slope=0.0, steps=48)
    assert found.start_activation < -1 < -0.01 < found.activation <= 0.18
    assert not found.stuck


def test_a_probability_that_rose_to_1_is_not_stuck() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 3)
    with torch.no_grad():
        linear.weight.mul_(40)
    head = nn.Sequential(nn.Flatten(), linear, nn.LogSoftmax(1))
    found = maximize(Network(head, (1, 8, 8)), "output:1", preset="max", steps=48)
    assert found.start_activation < found.activation
    assert found.activation == pytest.approx(0, abs=1e-3)
    assert not found.stuck


@pytest.mark.parametrize(
    ("start", "best", "stuck"),
    [
        (0.0, 0.0, True),
        (2.0, 1.5, True),
        (2.0, 2.0 * (1 + ROUNDING / 2), True),
        (2.0, 2.0 * (1 + 2 * ROUNDING), False),
        (0.0, 1e-20, False),
        (-1.0, -0.5, False),
    ],
)
def test_to_get_nowhere_is_to_rise_by_no_more_than_rounding(start: float, best: float, stuck: bool) -> None:
    lane = Lane(AscentSettings(), Logit("output", 0), steepest=1.0, steepest_ever=1.0)
    assert is_stuck(small(), lane, start, best) is stuck


def test_a_rendering_offers_what_is_measured_of_its_best_image(tmp_path: Path) -> None:
    network = small()
    lane = finished(network)
    rendering = render(network, Spec(model="small", layer="conv2", unit=2), [lane], ran_s=1.0)
    result = rendering.result
    assert (rendering.activation, rendering.stuck) == (result.achieved_activation, result.stuck)
    assert (rendering.start_activation, rendering.curve) == (result.start_activation, result.curve)
    assert repr(rendering).startswith("Rendering('conv2:2', activation ")
    rendering.save(tmp_path / "unit.png")
    assert (tmp_path / "unit.png").read_bytes() == rendering.png == rendering._repr_png_()
