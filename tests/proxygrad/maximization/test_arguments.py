"""Bad questions to `maximize` and bad networks: each is refused with the value and what is valid."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.errors import (
    InvalidRequest,
    NetworkError,
    ObjectiveMismatch,
    PositionOutOfRange,
    SizeUnsupported,
    UnitOutOfRange,
    UnknownLayer,
)
from proxygrad.maximization.arguments import SYNONYMS
from proxygrad.maximization.ascent import maximize
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.objectives.directions import Direction, Energy
from proxygrad.objectives.units import Channel, Logit, Neuron
from proxygrad.spec.settings import AscentSettings
from tests.support.networks import small

UNIT = Channel("conv2", 0)
SEVEN = (1.0, 0, 0, 0, 0, 0, 0)
SIX = SEVEN[:6]


def start(*shape: int, fill: float = 0.5) -> Tensor:
    return torch.full(shape, fill)


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (Channel("conv3", 0), UnknownLayer, r"unknown layer of model 'small': 'conv3'; near names: conv"),
        (Channel("", 0), UnknownLayer, r"unknown layer of model 'small': ''; there are: conv, bn"),
        (Channel("conv2", 6), UnitOutOfRange, r"unit 6 is out of range: layer 'conv2' has units 0 to 5"),
        (Channel("conv2", -1), UnitOutOfRange, r"unit -1 is out of range: .* 0 to 5"),
        (Channel("conv2", 1.5), InvalidRequest, r"unit 1.5 at layer 'conv2' is no whole number"),  # type: ignore[arg-type]
        (Neuron("conv2", 0, (1.5, 0)), InvalidRequest, r"position \[1.5, 0\] .* no whole number"),  # type: ignore[arg-type]
        (Neuron("conv2", 6), UnitOutOfRange, r"unit 6 .* units 0 to 5"),
        (Neuron("fc", 4), UnitOutOfRange, r"unit 4 .* layer 'fc' has units 0 to 3"),
        (Logit("output", 4), UnitOutOfRange, r"unit 4 .* layer 'output' has units 0 to 3"),
        (Logit("output", -1), UnitOutOfRange, r"unit -1 .* units 0 to 3"),
        (Logit("output", 1) - Logit("output", 9), UnitOutOfRange, r"unit 9 .* units 0 to 3"),
        (Neuron("conv2", 0, (8, 0)), PositionOutOfRange, r"\[8, 0\] .* rows 0 to 7 and columns 0 to 7"),
        (Neuron("conv2", 0, (0, -1)), PositionOutOfRange, r"\[0, -1\] .* columns 0 to 7"),
        (Neuron("conv2", 0, (3,)), PositionOutOfRange, r"position \[3\] .* rows 0 to 7 and columns"),
        (Neuron("conv2", 0, ()), PositionOutOfRange, r"position \[\] .* rows 0 to 7 and columns"),
        (Neuron("fc", 0, (1,)), ObjectiveMismatch, r"^position does not apply .* 'fc' \(a vector\)"),
        (
            Channel("fc", 0),
            ObjectiveMismatch,
            r"'channel' .* 'fc' \(a vector\); valid: neuron, logit, margin",
        ),
        (
            Logit("conv2", 0),
            ObjectiveMismatch,
            r"'logit' .* 'conv2' \(a feature_map\); valid: channel, neuron",
        ),
        (Direction("conv2", SEVEN), InvalidRequest, r"direction of 7 numbers: layer 'conv2' has 6 units"),
        (Direction("conv2", ()), InvalidRequest, r"direction of 0 numbers"),
        (Direction("conv2", (0.0,) * 6), InvalidRequest, r"direction \[0.0, .* must be finite, not zero"),
        (Direction("conv2", (*SIX[:5], float("nan"))), InvalidRequest, r"nan\] .* must be finite"),
        (Direction("conv2", SIX, "angle"), InvalidRequest, r"measure 'angle'; there are dot, cosine"),  # type: ignore[arg-type]
        (Direction("conv2", SIX, "cosine", cosine_power=-1), InvalidRequest, r"cosine_power -1 must be"),
        (Direction("conv2", SIX, position=(8, 0)), PositionOutOfRange, r"rows 0 to 7"),
        (Direction("fc", (1.0, 0, 0, 0), position=(0,)), ObjectiveMismatch, r"^position does not apply"),
        (Energy("conv9"), UnknownLayer, r"'conv9'"),
        (float("nan") * UNIT, InvalidRequest, r"weights \[nan\] must be finite"),
        ("conv2", InvalidRequest, r"objective 'conv2' names a layer but no unit"),
        ([UNIT, 3], InvalidRequest, r"objective 3 is of type int"),
        ([], InvalidRequest, r"no objectives: give one or more"),
    ],
)
def test_what_the_network_does_not_have_is_named(
    objective: Objective, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        maximize(small(), objective, steps=1)
    assert isinstance(raised.value, InvalidRequest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "images 0 must be a whole number, at least 1"),
        ({"images": 1.5}, "images 1.5 must be a whole number"),
        ({"images": 2, "diversity": -0.5}, "diversity -0.5 must be 0 or a positive number"),
        ({"images": 2, "diversity": float("nan")}, "diversity nan"),
        ({"diversity": 0.5}, "diversity 0.5 with images 1: a single image has none to differ from"),
        ({"seed": []}, r"seed \[\] has no numbers"),
        ({"seed": [1, 2, 3], "images": 2}, "images 2 beside 3 seeds: leave images out"),
        ({"images": 2, "seed": 2**63 - 1}, "seed 9223372036854775807 with images 2 goes beyond"),
        ({"slope": [0.1, 0.2]}, r"slope \[0.1, 0.2\] has 2 numbers for 1 objective"),
        ({"slope": []}, r"slope \[\] has 0 numbers for 1 objective"),
        ({"max_lanes": 0}, "max_lanes 0 must be at least 1"),
        ({"start": "gray"}, r"start is of type str; valid: a torch tensor or an array \(C, H, W\)"),
        ({"start": np.zeros((16, 16, 3))}, r"start has shape \(16, 16, 3\); .*: start.permute\(2, 0, 1\)"),
        ({"start": np.zeros((3, 16, 16), np.uint8)}, "start is of type torch.uint8; valid: floating-point"),
        ({"start": [start(3, 16, 16)] * 2}, r"start has 2 images for 1 objective"),
        ({"start": ["gray"]}, "start is of type str"),
        ({"start": start(1, 16, 16)}, r"start has shape \(1, 16, 16\); valid: .* with 3 channel"),
        ({"start": start(1, 1, 3, 16, 16)}, r"start has shape \(1, 1, 3, 16, 16\)"),
        ({"start": start(2, 3, 16, 16)}, r"start has 2 images for 1 objective"),
        ({"start": start(3, 16, 16, fill=1.1)}, "start has values from 1.1 to 1.1; valid: 0 to 1"),
        ({"start": start(3, 16, 16, fill=float("nan"))}, r"start has the value nan at \[0, 0, 0\]; valid"),
        ({"start": start(3, 0, 16)}, r"start has shape \(3, 0, 16\), which holds no values"),
        ({"start": start(3, 16, 16).to(torch.uint8)}, "start is of type torch.uint8; valid: floating-point"),
        ({"start": start(3, 16, 16), "size_px": 20}, "size_px 20 beside a start of 16x16 px"),
    ],
)
def test_arguments_out_of_their_limits_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        maximize(small(), UNIT, **{"steps": 1, **arguments})


def magnitude(*shape: int, fill: float = 1.0) -> Tensor:
    return torch.full(shape, fill)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameterization": "pixels"}, "magnitude applies to parameterization 'maco', not 'pixels'"),
        ({"preset": "fast", "parameterization": "fourier"}, "'maco', not 'fourier'"),
        ({"magnitude": np.ones((3, 16, 9))}, "magnitude is of type ndarray; valid: a torch tensor"),
        ({"magnitude": magnitude(3, 16, 9).int()}, "magnitude is of type torch.int32; valid: floating-point"),
        (
            {"magnitude": magnitude(3, 16, 16)},
            r"shape \(3, 16, 16\); valid for images of 16x16 px: \(3, 16, 9\), which is \(channels, height",
        ),
        ({"magnitude": magnitude(1, 16, 9)}, r"shape \(1, 16, 9\); valid .* \(3, 16, 9\)"),
        ({"magnitude": magnitude(16, 9)}, r"shape \(16, 9\); valid"),
        ({"size_px": 20}, r"shape \(3, 16, 9\); valid for images of 20x20 px: \(3, 20, 11\)"),
        ({"start": start(3, 17, 12)}, r"shape \(3, 16, 9\); valid for images of 17x12 px: \(3, 17, 7\)"),
        ({"magnitude": magnitude(3, 16, 9, fill=-1.0)}, "magnitude has values down to -1; valid: 0 or more"),
        (
            {"magnitude": magnitude(3, 16, 9, fill=float("nan"))},
            r"magnitude has, in float32, the value nan at",
        ),
        ({"magnitude": 1e300 * magnitude(3, 16, 9).double()}, "magnitude has, in float32, the value inf at"),
        (
            {"magnitude": magnitude(3, 16, 9, fill=0.0)},
            "magnitude is 0 in channel 0 at every frequency but 0",
        ),
    ],
)
def test_magnitudes_that_maco_cannot_keep_are_named(arguments: dict[str, Any], message: str) -> None:
    given = {"parameterization": "maco", "magnitude": magnitude(3, 16, 9), "steps": 1, **arguments}
    with pytest.raises(InvalidRequest, match=message):
        maximize(small(), UNIT, **given)


@pytest.mark.parametrize(
    "settings",
    [
        {"slope": -0.05},
        {"slope": 1.01},
        {"slope": [1.5]},
        {"slope": "high"},
        {"slope_end": -1},
        {"slope_hold": 0.5},
        {"slope_hold": 0.5, "slope_end": 0, "slope_end_at": 0.5},
        {"slope_end_at": 0.5},
        {"update": "whitened"},
        {"spread_max_pool": 1.1},
        {"spread_max_pool": -0.1},
        {"start_noise": -0.1},
        {"start_noise": 0.6},
        {"start_noise": 0, "parameterization": "maco"},
        {"steps": 0},
        {"steps": 4097},
        {"step_size": 0},
        {"size_px": 7},
        {"blur_px": 1.0},
        {"seed": -1},
        {"seed": 0.5},
        {"seed": [0, -1]},
    ],
)
def test_settings_out_of_their_limits_are_named(settings: dict[str, Any]) -> None:
    (name, value) = next(iter(settings.items()))
    with pytest.raises(InvalidRequest, match=name) as raised:
        maximize(small(), UNIT, **settings)
    assert f"{np.ravel(value)[-1]}".removesuffix(".0") in str(raised.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("stepps", "did you mean steps or step_size"),
        ("lr", r"did you mean step_size\?"),
        ("optimizer", r"did you mean update\?"),
        ("tv", r"did you mean total_variation\?"),
        ("imagess", "did you mean images"),
        ("qqq", "valid: blur_px, diversity, .*, start, start_noise, .*"),
    ],
)
def test_an_unknown_keyword_names_those_that_are_near(name: str, hint: str) -> None:
    unknown: dict[str, Any] = {name: 1}
    with pytest.raises(InvalidRequest, match=f"unknown keyword '{name}'; {hint}"):
        maximize(small(), UNIT, **unknown)


def test_every_synonym_is_of_a_keyword() -> None:
    keywords = {*AscentSettings.model_fields, *inspect.signature(maximize).parameters}
    assert set(SYNONYMS.values()) <= keywords
    assert not SYNONYMS.keys() & keywords


def test_a_start_too_small_for_the_network_is_named() -> None:
    network = Network(nn.Sequential(nn.Conv2d(3, 4, 11)), (3, 16, 16), name="wide")
    with pytest.raises(SizeUnsupported, match=r"cannot take an image of 9x10 px .*own size is 16x16"):
        maximize(network, Channel("0", 0), start=start(3, 9, 10))
    with pytest.raises(SizeUnsupported, match=r"cannot take an image of 8x8 px"):
        maximize(network, Channel("0", 0), size_px=8)


def test_a_network_without_a_classifier_has_no_logits() -> None:
    network = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 16, 16))
    with pytest.raises(ObjectiveMismatch, match=r"'logit' .* 'output' \(a feature_map\); valid: channel"):
        maximize(network, Logit("output", 0))


def test_a_layer_that_does_not_depend_on_the_image_is_named() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.apart = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            both: Tensor = self.seen(x) + self.apart(torch.ones_like(x))
            return both

    with pytest.raises(NetworkError, match="layer 'apart' does not depend on the image"):
        maximize(Network(Apart(), (3, 16, 16)), Channel("apart", 0))


@pytest.mark.parametrize("module", ["resnet18", functional.relu, None, {}])
def test_what_is_no_module_is_named(module: Any) -> None:
    with pytest.raises(NetworkError, match=r"is of type \w+, not a torch.nn.Module"):
        Network(module, (3, 16, 16))


@pytest.mark.parametrize("vector", [list(SIX), np.array(SIX), torch.tensor(SIX)])
def test_directions_may_be_arrays(vector: Any) -> None:
    assert Direction("conv2", vector) == Direction("conv2", SIX)


@pytest.mark.parametrize("slopes", [(0.0, 0.1), np.array([0.0, 0.1]), torch.tensor([0.0, 0.1])])
def test_slopes_may_be_arrays(slopes: Any) -> None:
    outcomes = maximize(small(), [UNIT, UNIT], slope=slopes, steps=1)
    assert [outcome.settings.slope for outcome in outcomes] == pytest.approx([0.0, 0.1])


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_only_the_direction_of_a_direction_counts(scale: float) -> None:
    read = {"l": torch.tensor([[3.0, 4.0]])}
    assert Direction("l", (3 * scale, 4 * scale))(read).tolist() == pytest.approx([5.0])
