"""The library's one call: every setting does what it says, and lanes stay their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from proxygrad.engine.lane import Lane
from proxygrad.errors import InvalidRequest, LaneError, PositionOutOfRange, UnknownLayer
from proxygrad.maximization.ascent import maximize
from proxygrad.maximization.visualization import Visualization, VisualizationList
from proxygrad.networks.network import Network
from proxygrad.objectives.directions import Direction, Energy
from proxygrad.objectives.units import Channel, Logit, Margin, Neuron, TopQuarter
from proxygrad.optim.regularizers import similarity
from proxygrad.parameterizations import spectrum
from proxygrad.spec.settings import AscentSettings, ParameterizationName, UpdateName
from tests.support.networks import Small, small


def value(network: Network, layer: str, image: Tensor) -> Tensor:
    with torch.no_grad():
        return network.activations(image.unsqueeze(0), layer)


def test_each_objective_gets_its_image_and_rises() -> None:
    network = small()
    asked = [
        Channel("conv2", 1),
        Neuron("conv2", 3),
        Logit("output", 2),
        Direction("conv2", (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)),
        Energy("conv2"),
        Channel("conv2", 1) - 0.5 * Logit("output", 2),
        Margin("output", 2, against=1),
        -Logit("output", 0),
    ]
    outcomes = maximize(network, asked, steps=12, seed=3)
    assert [outcome.objective.layers for outcome in outcomes][:3] == [("conv2",), ("conv2",), ("output",)]
    for outcome in outcomes:
        assert outcome.activation > outcome.start_activation, outcome.objective
        assert len(outcome.curve) == 13
        assert outcome.image.shape == (3, 16, 16)
    assert outcomes[1].objective == Neuron("conv2", 3, (4, 4))
    fc = value(network, "fc", outcomes[6].image)[0]
    assert outcomes[6].activation == pytest.approx(float(fc[2] - fc[1]), rel=1e-5)


@pytest.mark.parametrize("parameterization", ["pixels", "fourier", "maco"])
@pytest.mark.parametrize("update", ["normalized", "sgd", "adam"])
def test_every_parameterization_rises_with_every_update(
    parameterization: ParameterizationName, update: UpdateName
) -> None:
    outcome = maximize(
        small(),
        Channel("conv2", 1),
        parameterization=parameterization,
        update=update,
        steps=12,
        step_size=0.05,
    )
    assert outcome.activation > outcome.start_activation
    assert 0 <= float(outcome.image.min()) <= float(outcome.image.max()) <= 1


def test_the_authors_settings_run_as_one_request() -> None:
    outcome = maximize(
        small(),
        TopQuarter("conv2", 1),
        preset="max",
        update="whitened",
        slope=1.0,
        slope_end=0.01,
        slope_hold=0.2,
        slope_end_at=0.3,
        blur_px=0.5,
        steps=20,
    )
    assert outcome.activation > outcome.start_activation
    conv2 = value(small(), "conv2", outcome.image)[0, 1].flatten().sort(descending=True).values
    assert outcome.activation == pytest.approx(float(conv2[: -(-len(conv2) // 4)].mean()), rel=1e-5)


@pytest.mark.parametrize("gaf", ["atan", "tanh", "log"])
def test_gradient_activations_rise_too(gaf: str) -> None:
    outcome = maximize(small(), Channel("conv2", 1), gaf=gaf, update="sgd", steps=12)
    assert outcome.activation > outcome.start_activation


def test_alpha_is_a_factor_of_the_step_and_beta_bends_it() -> None:
    """In SGD; `normalized`, where α has no effect, refuses it."""

    def image(**settings: Any) -> torch.Tensor:
        found: Visualization = maximize(small(), Channel("conv2", 1), gaf="atan", steps=6, **settings)
        return found.image

    doubled = image(update="sgd", gaf_alpha=0.2, step_size=0.05)
    assert torch.allclose(doubled, image(update="sgd", gaf_alpha=0.1, step_size=0.1), atol=1e-5)
    assert not torch.allclose(doubled, image(update="sgd", gaf_alpha=0.1, step_size=0.05), atol=1e-3)
    assert not torch.allclose(image(gaf_beta=0.1), image(gaf_beta=1000), atol=1e-3)
    with pytest.raises(InvalidRequest, match=r"gaf_alpha 0\.2 has no effect with update 'normalized'"):
        image(gaf_alpha=0.2)


def test_what_is_measured_is_the_image_itself_not_a_view() -> None:
    network = small()
    exact: dict[str, Any] = {"precision": "float32"}
    outcome = maximize(network, Neuron("conv2", 2), robustness="standard", steps=12, **exact)
    assert outcome.start_activation == pytest.approx(
        maximize(network, Neuron("conv2", 2), steps=1).start_activation, rel=1e-6
    )
    expected = float(value(network, "conv2", outcome.image)[0, 2, 4, 4])
    assert outcome.activation == pytest.approx(expected, rel=1e-6)
    assert outcome.curve[-1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("preset", ["max", "natural", "fast"])
def test_presets_are_completed_and_rise(preset: str) -> None:
    outcome = maximize(small(), Channel("conv2", 1), preset=preset)
    assert outcome.activation > outcome.start_activation
    assert outcome.settings.completed() == outcome.settings


@pytest.mark.parametrize(
    "settings", [{}, {"robustness": "standard", "parameterization": "fourier", "update": "adam"}]
)
def test_a_lane_among_strangers_is_the_lane_alone(settings: dict[str, Any]) -> None:
    """Its own seed, views and slope; what is left is float rounding between batch sizes."""
    network = small()
    mine = Neuron("conv2", 2)
    settings = {**settings, "precision": "float32"}
    alone = maximize(network, mine, seed=7, slope=0.1, steps=10, **settings)
    strangers = [Channel("conv2", unit % 6) for unit in range(9)]
    slopes = [unit / 9 for unit in range(9)]
    together = maximize(network, [*strangers, mine], seed=7, slope=[*slopes, 0.1], steps=10, **settings)[-1]
    torch.testing.assert_close(together.image, alone.image, rtol=0, atol=0.5 / 255)
    assert together.curve == pytest.approx(alone.curve, rel=1e-3, abs=1e-5)


def test_the_slope_may_change_over_the_steps() -> None:
    """From 0.5 to 0: other than either all along; and from 0 to 0 it is slope 0 to the bit."""
    network = small()
    ends = [
        maximize(network, Neuron("conv2", 2), slope=begin, slope_end=end, steps=10).image
        for begin, end in ((0.5, None), (0.5, 0.0), (0.0, None), (0.0, 0.0))
    ]
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])
    assert torch.equal(ends[2], ends[3])


def test_the_slope_may_be_held_before_and_after_it_changes() -> None:
    """The schedule of the authors' earlier public code: 1.0 for a fifth of the steps, 0.01 from 30 % on."""
    settings = AscentSettings(slope=1.0, slope_end=0.01, slope_hold=0.2, slope_end_at=0.3, steps=101)
    lane = Lane(settings, Neuron("conv2", 2))
    slopes = []
    for step in range(101):
        lane.curve = [0.0] * step
        slopes.append(lane.slope)
    assert slopes[:21] == [1.0] * 21
    assert slopes[20:31] == pytest.approx([1.0 - 0.099 * step for step in range(11)])
    assert slopes[30:] == pytest.approx([0.01] * 71)


def test_both_readings_of_the_method_agree_without_a_slope_and_differ_with_one() -> None:
    network = small()
    plain = [
        maximize(network, Neuron("fc", 2), slope=0, proxy=proxy, steps=8, precision="float32")
        for proxy in ("surrogate", "network")
    ]
    assert plain[0].curve == pytest.approx(plain[1].curve, rel=1e-4, abs=1e-6)
    sloped = [
        maximize(network, Neuron("fc", 2), slope=0.3, proxy=proxy, steps=8, precision="float32")
        for proxy in ("surrogate", "network")
    ]
    assert sloped[0].curve[0] == pytest.approx(sloped[1].curve[0], rel=1e-5)
    assert sloped[0].curve[1:] != sloped[1].curve[1:]
    for outcome in sloped:
        expected = float(value(network, "fc", outcome.image)[0, 2])
        assert outcome.activation == pytest.approx(expected, rel=1e-5)


def test_diversity_makes_images_less_alike() -> None:
    network = small()
    alike = []
    for diversity in (0.0, 1.0):
        outcomes = maximize(network, Channel("conv2", 1), images=4, diversity=diversity, steps=16)
        assert [outcome.settings.seed for outcome in outcomes] == [0, 1, 2, 3]
        with torch.no_grad():
            read = network.activations(torch.stack([outcome.image for outcome in outcomes]), "conv2")
        alike.append(float(similarity(read)))
    assert alike[1] < alike[0] - 0.01


def test_diversity_needs_no_order_in_a_batch() -> None:
    class SequenceFirst(Small):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = torch.nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            columns = self.relu(self.conv(x)).mean(dim=2).permute(2, 0, 1)  # (W, B, 8)
            mixed: Tensor = self.tokens(columns)
            return mixed.mean(dim=0)

    network = Network(SequenceFirst(), (3, 16, 16), name="sequence")
    own = [each.image for each in maximize(network, Channel("conv", 1), images=2, steps=4)]
    led = [each.image for each in maximize(network, Channel("conv", 1), images=2, steps=4, diversity=2.0)]
    assert float((led[0] - led[1]).abs().mean()) > float((own[0] - own[1]).abs().mean())


def test_an_image_of_ones_own_to_start_with() -> None:
    network = small()
    start = torch.rand((3, 20, 12), generator=torch.Generator().manual_seed(0))
    outcome = maximize(network, Channel("conv2", 1), start=start, preset="max", steps=1, step_size=1e-6)
    torch.testing.assert_close(outcome.image, start, rtol=0, atol=1e-4)
    assert outcome.start_activation == pytest.approx(
        float(value(network, "conv2", start)[0, 1].mean()), rel=1e-4
    )


@pytest.mark.parametrize("size", [(16, 16), (15, 20)])
def test_a_magnitude_of_ones_own_is_kept_by_every_image(size: tuple[int, int]) -> None:
    """One that is far from 1/f, for four lanes of one group; each image has it, and none has it without."""
    network, start = small(), torch.rand((3, *size), generator=torch.Generator().manual_seed(1))
    magnitude = spectrum(torch.rand((64, 3, *size), generator=torch.Generator().manual_seed(0)))
    given: dict[str, Any] = {"parameterization": "maco", "steps": 8, "step_size": 0.1, "images": 2}
    asked = [Channel("conv2", 1), Logit("output", 2)]

    def distance(outcome: Visualization) -> float:
        found, wanted = spectrum(outcome.image.unsqueeze(0)), magnitude.clone()
        found[:, 0, 0] = wanted[:, 0, 0] = 0
        found, wanted = (each / each.norm(dim=(1, 2), keepdim=True) for each in (found, wanted))
        return float((found - wanted).norm(dim=(1, 2)).max())

    outcomes = maximize(network, asked, start=start, magnitude=magnitude, slope=[0.0, 0.1], **given)
    assert len(outcomes) == 4
    for outcome in outcomes:
        assert distance(outcome) < 0.02
        assert outcome.activation > outcome.start_activation
        assert outcome.curve[0] == pytest.approx(outcome.start_activation, rel=1e-4, abs=1e-6)
        assert outcome.magnitude is not None
        ratio = (outcome.magnitude / magnitude).flatten(1)[:, 1:]
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3, atol=0)
    for outcome in maximize(network, asked, start=start, **given):
        assert distance(outcome) > 0.3
        assert outcome.magnitude is None


@pytest.mark.parametrize(("name", "amount"), [("total_variation", 1.0), ("l2", 5.0), ("blur_px", 1.0)])
def test_regularizers_do_what_they_are_for(name: str, amount: float) -> None:
    network = small()
    weights: dict[str, Any] = {name: amount}
    without = maximize(network, Channel("conv2", 1), preset="max", steps=16).image
    with_it = maximize(network, Channel("conv2", 1), preset="max", steps=16, **weights).image

    def roughness(image: Tensor) -> float:
        return float((image[:, 1:] - image[:, :-1]).abs().mean())

    def distance(image: Tensor) -> float:
        return float((image - 0.5).square().mean())

    measured = distance if name == "l2" else roughness
    assert measured(with_it) < 0.8 * measured(without)


def test_progress_counts_all_images() -> None:
    seen = list[tuple[int, int]]()
    maximize(
        small(), [Channel("conv2", 0), Channel("conv2", 1)], steps=3, on_step=lambda *at: seen.append(at)
    )
    assert seen == [(0, 6), (2, 6), (4, 6), (6, 6)]


def test_more_images_than_fit_wait_their_turn() -> None:
    outcomes = maximize(small(), [Channel("conv2", unit) for unit in range(6)], steps=4, max_lanes=2)
    together = maximize(small(), [Channel("conv2", unit) for unit in range(6)], steps=4)
    for one, other in zip(outcomes, together, strict=True):
        assert one.objective == other.objective
        torch.testing.assert_close(one.image, other.image, rtol=0, atol=0.5 / 255)


def test_bad_questions_name_value_and_choices() -> None:
    network = small()
    with pytest.raises(UnknownLayer, match="near names: conv, conv2"):
        maximize(network, Channel("conv3", 0))
    with pytest.raises(PositionOutOfRange, match="rows 0 to 7"):
        maximize(network, Neuron("conv2", 0, (8, 0)))
    with pytest.raises(InvalidRequest, match=r"steps 0: .* greater than or equal to 1"):
        maximize(network, Channel("conv2", 0), steps=0)


def test_a_lane_that_leaves_finite_numbers_is_named() -> None:
    class Overflow(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1e30 * x.amax() ** 1000 * 1e30

    with pytest.raises(LaneError, match=r"unit=2.*step \d"):
        maximize(Network(Overflow(), (3, 16, 16)), Logit("output", 2), steps=20)


def test_one_objective_gives_one_visualization_and_a_list_gives_a_list() -> None:
    network = small()
    one = maximize(network, "conv2:1", steps=2)
    assert isinstance(one, Visualization)
    assert isinstance(maximize(network, ["conv2:1"], steps=2), VisualizationList)
    assert len(maximize(network, "conv2:1", steps=2, images=2)) == 2
    assert len(maximize(network, "conv2:1", steps=2, seed=[4])) == 1


def test_a_list_of_seeds_makes_an_image_of_each() -> None:
    network = small()
    found = maximize(network, ["conv2:1", "conv2:2"], seed=[5, 3], steps=3)
    assert [(each.objective.unit, each.settings.seed) for each in found] == [(1, 5), (1, 3), (2, 5), (2, 3)]
    alone = maximize(network, "conv2:1", seed=3, steps=3)
    torch.testing.assert_close(found[1].image, alone.image, rtol=0, atol=0.5 / 255)


def test_each_objective_may_begin_with_an_image_of_its_own() -> None:
    network, generator = small(), torch.Generator().manual_seed(0)
    starts = [torch.rand((3, *size), generator=generator) for size in ((16, 16), (20, 12))]
    found = maximize(network, ["conv2:1", "conv2:2"], start=starts, steps=2)
    for unit, each, start in zip((1, 2), found, starts, strict=True):
        assert each.image.shape == start.shape
        expected = float(value(network, "conv2", start)[0, unit].mean())
        assert each.start_activation == pytest.approx(expected, rel=1e-2)
    array = starts[0].numpy().astype("float64")
    assert torch.equal(
        maximize(network, "conv2:1", start=array, steps=2).image,
        maximize(network, "conv2:1", start=starts[0], steps=2).image,
    )
