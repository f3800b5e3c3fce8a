"""A `Robustness` of one's own: its limits, and what the network is shown under it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad.errors import InvalidRequest
from proxygrad.maximization.ascent import maximize
from proxygrad.maximization.visualization import Visualization
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Channel, Neuron
from proxygrad.spec.robustness import ROBUSTNESS, Robustness, resolved
from proxygrad.spec.settings import AscentSettings
from tests.support.networks import small

SEEN: list[Tensor] = []
SIZE = (32, 48)
STEPS = 24


class Witness(nn.Module):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(x.detach().clone())
        activation: Tensor = self.conv(x)
        return activation


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    yield
    SEEN.clear()


def ramp() -> Tensor:
    """``(1, *SIZE)``: brightness rises by 0.01 a pixel to the right, from 0.26 to 0.73."""
    across = 0.5 + 0.01 * (torch.arange(SIZE[1]) - (SIZE[1] - 1) / 2)
    return across.expand(1, *SIZE).clone()


def views(robustness: Robustness, **settings: Any) -> Tensor:
    """What the network is shown at each evaluation of an image that stays a ramp, ``(STEPS + 1, *SIZE)``."""
    network = Network(Witness(), (1, *SIZE))
    network.prepared(("conv",), "float32")
    network.layer_shape("conv", SIZE)
    SEEN.clear()
    given: dict[str, Any] = {"steps": STEPS, "step_size": 1e-9, "precision": "float32", **settings}
    maximize(network, Channel("conv", 0), start=ramp(), robustness=robustness, **given)
    shown = [each for each in SEEN if each.min() < each.max()]  # the layer is tried on plain gray first
    assert {tuple(seen.shape) for seen in shown} == {(1, 1, *SIZE)}
    return torch.cat(shown)[: STEPS + 1, 0]


def rises(moved: Tensor) -> tuple[Tensor, Tensor]:
    """How much brighter it gets by a pixel to the right and by one down, in the middle; a ramp has 1, 0."""
    row, column = SIZE[0] // 2, SIZE[1] // 2
    middle = moved[:, row - 2 : row + 3, column - 2 : column + 3]
    return (middle[:, 2, 4] - middle[:, 2, 0]) / 0.04, (middle[:, 4, 2] - middle[:, 0, 2]) / 0.04


def test_the_first_and_the_last_evaluation_see_the_image_itself() -> None:
    seen = views(Robustness(jitter_px=4, scale=(0.8, 1.2), rotate_deg=20, pad_px=2, crop=0.6, noise=0.1))
    for each in (seen[0], seen[-1]):
        torch.testing.assert_close(each, ramp()[0], rtol=0, atol=1e-5)
    assert len({float(each.sum()) for each in seen[1:-1]}) == STEPS - 1  # each drawn anew


def test_jitter_shifts_as_far_as_asked() -> None:
    moved = views(Robustness(jitter_px=8))[1:-1]
    shifts = (moved[:, SIZE[0] // 2, SIZE[1] // 2] - ramp()[0, 0, SIZE[1] // 2]) / 0.01
    assert 5 < float(shifts.abs().max()) <= 8.001  # further than an eighth of the side, which is 4 px
    torch.testing.assert_close(rises(moved)[0], torch.ones(STEPS - 1), rtol=0, atol=1e-3)


def test_scale_magnifies() -> None:
    across, down = rises(views(Robustness(scale=(1.25, 1.25)))[1:-1])
    torch.testing.assert_close(across, torch.full_like(across, 1 / 1.25), rtol=0, atol=1e-3)
    torch.testing.assert_close(down, torch.zeros_like(down), rtol=0, atol=1e-3)


def test_rotation_turns() -> None:
    across, down = rises(views(Robustness(rotate_deg=45))[1:-1])
    torch.testing.assert_close(across.hypot(down), torch.ones_like(across), rtol=0, atol=1e-3)
    assert 0.5 < float(down.abs().max()) <= 0.708


def test_padding_shows_what_is_beyond() -> None:
    moved = views(Robustness(pad_px=8))[1:-1]
    across, _ = rises(moved)
    torch.testing.assert_close(across, torch.full_like(across, (48 + 16) / 48), rtol=0, atol=1e-3)
    turned = moved[:, :, :3].mean(dim=(0, 1))  # mirrored: outside the border it gets darker to the right
    assert float(turned[0]) > float(turned[1]) > float(turned[2])


def test_a_crop_is_a_part_of_the_image_anywhere_inside() -> None:
    moved = views(Robustness(crop=0.5))[1:-1]
    across, _ = rises(moved)
    assert 0.5 <= float(across.min()) + 1e-3 < 0.6
    assert 0.9 < float(across.max()) <= 1.001
    widths = (moved[:, 0, -1] - moved[:, 0, 0]) / 0.01 + across  # in pixels of the image
    torch.testing.assert_close(widths / SIZE[1], across, rtol=0, atol=0.03)
    assert float(moved[:, :, 0].std()) > 0.02  # not all of one corner
    assert 0.26 <= float(moved.min()) < float(moved.max()) <= 0.74


def test_noise_is_of_the_deviation_asked_for() -> None:
    differences = views(Robustness(noise=0.2))[1:-1] - ramp()
    assert float(differences.std()) == pytest.approx(0.2, rel=0.03)
    assert not torch.equal(differences[0], differences[1])


def test_views_are_the_lanes_own() -> None:
    """By its seed, alone and among strangers."""
    own: dict[str, Any] = {
        "robustness": Robustness(crop=0.7, noise=0.05, pad_px=1),
        "steps": 8,
        "precision": "float32",
    }
    alone = maximize(small(), Neuron("conv2", 2), seed=5, **own)
    among = maximize(
        small(), [*(Channel("conv2", unit) for unit in range(5)), Neuron("conv2", 2)], seed=5, **own
    )
    assert among[-1].curve == pytest.approx(alone.curve, rel=1e-3, abs=1e-5)
    other = maximize(small(), Neuron("conv2", 2), seed=6, **own)
    assert other.curve[1] != pytest.approx(alone.curve[1], rel=1e-3)


def outcome(**settings: Any) -> Visualization:
    found: Visualization = maximize(small(), Channel("conv2", 1), steps=6, **settings)
    return found


def test_a_lucky_view_is_no_better_image() -> None:
    """The last image is kept, though the activation of some view was higher."""
    found = outcome(robustness=Robustness(noise=0.5), step_size=1e-4, precision="float32")
    assert max(found.curve) > 1.05 * found.curve[-1]
    assert found.activation == pytest.approx(found.curve[-1], rel=1e-5)
    assert found.activation != found.start_activation


def test_the_outcome_has_what_was_used_instead_of_the_presets() -> None:
    own = Robustness(crop=0.8)
    found = outcome(preset="natural", robustness=own)
    assert found.settings.robustness == own
    assert found.settings.parameterization == "fourier"
    assert outcome(preset="natural").settings.robustness == "standard"
    assert AscentSettings.model_validate_json(found.settings.model_dump_json()) == found.settings


def test_the_names_stand_for_what_can_be_given() -> None:
    standard = ROBUSTNESS["standard"]
    assert standard is not None
    assert torch.equal(outcome(robustness=standard).image, outcome(robustness="standard").image)
    assert torch.equal(outcome(robustness=Robustness()).image, outcome(robustness="none").image)
    assert resolved(Robustness(jitter_px=6, jitter_part=0)) is None
    assert resolved(Robustness(noise=0.1)) == Robustness(noise=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jitter_px": -1}, "jitter_px -1 must be 0 or a positive number"),
        ({"rotate_deg": float("nan")}, "rotate_deg nan must be 0 or a positive number"),
        ({"pad_px": float("inf")}, "pad_px inf must be"),
        ({"noise": -0.1}, "noise -0.1 must be"),
        ({"noise": "much"}, "noise 'much' must be"),
        ({"crop": 0}, "crop 0 must be above 0 and at most 1"),
        ({"crop": 1.5}, "crop 1.5 must be above 0 and at most 1"),
        ({"jitter_part": 2}, "jitter_part 2 must be from 0 to 1"),
        ({"scale": 1.1}, "scale 1.1 must be two positive numbers, the lower first"),
        ({"scale": (0.0, 1.0)}, r"scale \(0.0, 1.0\) must be two positive"),
        ({"scale": (1.1, 0.9)}, r"scale \(1.1, 0.9\) must be .* the lower first"),
        ({"scale": (0.9, float("nan"))}, r"scale \(0.9, nan\) must be two positive"),
        ({"scale": (0.9, 1.0, 1.1)}, "must be two positive numbers"),
    ],
)
def test_numbers_out_of_their_limits_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"robustness: .*{message}|robustness: {message}"):
        Robustness(**given)


@pytest.mark.parametrize("given", ["standart", None, {"jiter_px": 3}, 3])
def test_what_is_no_robustness_is_named(given: object) -> None:
    with pytest.raises(InvalidRequest, match="'none' or 'standard'"):
        outcome(robustness=given)
