"""What is said about a delivered image beside its activation, held against plain readings of the network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from proxygrad.engine.evaluation import SHIFTS, evaluate, shifted
from proxygrad.models import Catalog
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Activations, Objective
from proxygrad.objectives.directions import Energy
from proxygrad.objectives.units import Channel, Logit, Margin, Neuron
from proxygrad.spec import Result, Spec
from tests.support.networks import small

IMAGE = torch.rand((3, 32, 20), generator=torch.Generator().manual_seed(1))


def units(network: Network, layer: str, image: Tensor = IMAGE) -> Tensor:
    with torch.no_grad():
        return network.activations(image.unsqueeze(0), layer)[0]


@pytest.mark.parametrize("unit", range(6))
def test_the_rank_is_among_all_units_by_the_same_objective(unit: int) -> None:
    network = small()
    maps = units(network, "conv2")  # (6, 16, 10)
    cases: list[tuple[Objective, Tensor]] = [
        (Channel("conv2", unit), maps.mean(dim=(1, 2))),
        (Neuron("conv2", unit, (3, 4)), maps[:, 3, 4]),
    ]
    for objective, values in cases:
        order = values.argsort(descending=True).tolist()
        found = evaluate(network, objective, IMAGE, seed=0)
        assert (found.rank, found.rank_of) == (order.index(unit) + 1, 6)


@pytest.mark.parametrize("unit", range(4))
def test_the_rank_of_a_margin_is_that_of_its_logit(unit: int) -> None:
    own, plain = (evaluate(small(), kind("output", unit), IMAGE, seed=0) for kind in (Margin, Logit))
    assert (own.rank, own.rank_of) == (plain.rank, 4)


def test_units_that_are_equally_active_are_all_first() -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            nothing: Tensor = self.conv(x) * 0
            return nothing

    found = evaluate(Network(Silent(), (3, 32, 20)), Channel("conv", 4), IMAGE, seed=0)
    assert found.rank_of == 5
    relu = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Threshold(1e9, 0.0))
    assert evaluate(Network(relu, (3, 32, 20)), Channel("1", 4), IMAGE, seed=0).rank == 1


def test_the_classes_are_the_softmax_of_the_logits() -> None:
    network = small()
    expected = units(network, "fc").softmax(dim=0)
    found = evaluate(network, Channel("conv2", 1), IMAGE, seed=0).class_probabilities
    assert found is not None
    assert len(found) == 4
    assert [each.index for each in found] == expected.argsort(descending=True).tolist()
    assert [each.probability for each in found] == pytest.approx(expected.sort(descending=True)[0].tolist())
    assert sum(each.probability for each in found) == pytest.approx(1)
    assert {each.name for each in found} == {None}


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid(), nn.LogSoftmax(1), nn.Identity()], ids=repr)
def test_a_network_that_returns_probabilities_has_the_last_word(end: nn.Module) -> None:
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5), end), (3, 32, 20))
    own = units(network, "output")
    expected = own.softmax(0) if isinstance(end, nn.Identity | nn.LogSoftmax) else own
    seen = evaluate(network, Logit("output", 2), IMAGE, seed=0).class_probabilities
    assert seen is not None
    assert [each.probability for each in seen] == pytest.approx(
        [float(expected[each.index]) for each in seen]
    )
    assert [each.index for each in seen] == expected.argsort(descending=True).tolist()


def test_so_has_one_that_makes_them_by_hand() -> None:
    class Shares(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            rising = super().forward(input.mean((2, 3))).exp()
            return rising / rising.sum(1, keepdim=True)

    torch.manual_seed(0)
    network = Network(Shares(3, 5), (3, 32, 20))
    seen = evaluate(network, Logit("output", 2), IMAGE, seed=0).class_probabilities
    assert seen is not None
    own = units(network, "output")
    assert [each.probability for each in seen] == pytest.approx([float(own[each.index]) for each in seen])


@pytest.mark.parametrize("size", [(1, 32), (32, 1), (1, 1)])
def test_an_image_of_one_row_is_moved_along_it_alone(size: tuple[int, int]) -> None:
    image = torch.rand((3, *size), generator=torch.Generator().manual_seed(0))
    copies = shifted(image, seed=3)
    assert [copy.shape for copy in copies] == [image.shape] * SHIFTS
    assert all(torch.equal(copy, image) for copy in copies) == (size == (1, 1))


def test_the_shifts_are_small_mirrored_and_of_the_seed() -> None:
    image = torch.arange(100 * 50, dtype=torch.float32).view(1, 100, 50)
    copies = shifted(image, seed=5)
    assert len(copies) == SHIFTS
    assert all(torch.equal(one, other) for one, other in zip(copies, shifted(image, seed=5), strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(copies, shifted(image, seed=6), strict=True))
    moves = set()
    for copy in copies:
        row, column = divmod(int(copy[0, 50, 25]), 50)
        moves.add((row - 50, column - 25))
        assert set(copy.flatten().tolist()) <= set(image.flatten().tolist())
    assert all(abs(down) <= 4 and abs(right) <= 2 for down, right in moves)
    assert len(moves) > 1


def test_robustness_is_mean_and_deviation_over_the_shifts() -> None:
    network, objective = small(), Neuron("conv2", 2, (3, 4))
    values = [float(units(network, "conv2", copy)[2, 3, 4]) for copy in shifted(IMAGE, seed=7)]
    mean = sum(values) / SHIFTS
    found = evaluate(network, objective, IMAGE, seed=7).robust_activation
    assert found is not None
    assert found.mean == pytest.approx(mean, rel=1e-5)
    assert found.std == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / SHIFTS), rel=1e-4)


class Counting(nn.Module):
    """Notes how many images come to its head; copies of it note in the same list."""

    heads: list[int] = []  # noqa: RUF012, shared by copies

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.heads.append(len(x))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def test_shifted_copies_go_no_further_than_the_layer_that_is_asked_about() -> None:
    network = Network(Counting(), (3, 32, 20))
    evaluate(network, Channel("conv", 0), IMAGE, seed=0)  # which compares the working copy first
    Counting.heads.clear()
    found = evaluate(network, Channel("conv", 0), IMAGE, seed=0)
    assert found.class_probabilities is not None
    assert Counting.heads == [1]


def test_what_the_working_copy_says_is_what_the_network_says() -> None:
    network = Catalog.from_file().load("digits")
    image = torch.rand((1, 32, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact = network.read(torch.stack([image, *shifted(image, seed=3)]), ["layer3", "fc"])
    values, logits = exact["layer3"].mean(dim=(2, 3)), exact["fc"][0]
    for unit in range(0, 64, 4):
        found = evaluate(network, Channel("layer3", unit), image, seed=3)
        assert found.robust_activation is not None
        assert found.robust_activation.mean == pytest.approx(
            float(values[1:, unit].mean()), rel=1e-5, abs=1e-6
        )
        assert found.rank == 1 + int((values[0] > values[0, unit]).sum())
    assert found.class_probabilities is not None
    probabilities = logits.softmax(dim=0)
    for each in found.class_probabilities:
        assert each.probability == pytest.approx(float(probabilities[each.index]), abs=1e-5)


def test_large_images_are_read_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = evaluate(small(), Channel("conv2", 1), IMAGE, seed=0).robust_activation
    monkeypatch.setattr("proxygrad.engine.evaluation.PASS_PIXELS", 3 * 32 * 20)
    in_parts = evaluate(small(), Channel("conv2", 1), IMAGE, seed=0).robust_activation
    assert at_once is not None
    assert in_parts is not None
    assert (in_parts.mean, in_parts.std) == pytest.approx((at_once.mean, at_once.std), rel=1e-5)


class Fixed(nn.Module):
    """Its head takes images of one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).flatten(1))
        return logits


def test_a_model_that_does_not_classify_images_of_this_size_says_nothing_of_classes() -> None:
    network = Network(Fixed(), (3, 8, 8))
    at_home = evaluate(network, Channel("conv", 0), IMAGE[:, :8, :8], seed=0)
    assert at_home.class_probabilities is not None
    abroad = evaluate(network, Channel("conv", 0), IMAGE, seed=0)
    assert abroad.class_probabilities is None
    assert (abroad.rank_of, abroad.robust_activation is None) == (4, False)


class Alone(nn.Module):
    """Takes one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise ValueError("one at a time")
        maps: Tensor = self.conv(x)
        return maps


def test_a_network_that_takes_one_image_at_a_time_is_given_one_at_a_time() -> None:
    found = evaluate(Network(Alone(), (3, 32, 20)), Channel("conv", 0), IMAGE, seed=0)
    assert found.robust_activation is not None


def test_what_is_not_finite_is_left_out() -> None:
    class Infinite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(x.mean(dim=(2, 3))) / 0
            return logits

    found = evaluate(Network(Infinite(), (3, 32, 20)), Logit("output", 0), IMAGE, seed=0)
    assert (found.class_probabilities, found.robust_activation) == (None, None)


class Peak(Objective):
    """An objective of one's own: the highest value of a channel of ``conv2``."""

    unit = 2
    layers = ("conv2",)

    def __call__(self, activations: Activations) -> Tensor:
        return self.per_unit(activations)[:, self.unit]

    def per_unit(self, activations: Activations) -> Tensor:
        return activations["conv2"].amax(dim=(2, 3))


def test_an_objective_of_ones_own_has_the_rank_that_it_tells() -> None:
    peaks = units(small(), "conv2").amax(dim=(1, 2))
    found = evaluate(small(), Peak(), IMAGE, seed=0)
    assert (found.rank, found.rank_of) == (1 + int((peaks > peaks[2]).sum()), len(peaks))


def test_what_has_no_unit_has_no_rank() -> None:
    found = evaluate(small(), Energy("conv2"), IMAGE, seed=0)
    assert (found.rank, found.rank_of) == (None, None)
    assert found.robust_activation is not None


def test_a_record_of_before_has_none_of_it() -> None:
    spec = Spec(model="digits", layer="fc", unit=0)
    numbers = dict.fromkeys(("achieved_activation", "start_activation", "ran_s", "steps_per_s"), 1.0)
    counts = dict.fromkeys(("steps_done", "width_px", "height_px"), 1)
    texts = dict.fromkeys(("digest", "engine_version", "device", "dtype"), "x")
    fields = {"spec": spec, "stuck": False, "curve": (0.0, 1.0), **numbers, **counts, **texts}
    result = Result.model_validate(fields)
    assert (result.rank, result.robust_activation, result.class_probabilities) == (None, None, None)
