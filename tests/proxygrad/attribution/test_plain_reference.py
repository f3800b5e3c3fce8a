"""Multipliers against the formulas of Shrikumar et al. (arXiv 1704.02685), written slowly in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.choice import RuleLike, RuleName
from tests.support.attributed_functions import numbers


def rescale_slowly(f: object, z: float, z0: float) -> float:
    assert callable(f)
    return float((f(z) - f(z0)) / (z - z0))


def two_layers_slowly(
    w: Tensor, b: Tensor, v: Tensor, x: Tensor, x0: Tensor, reveal: bool, f: object
) -> list[float]:
    """Multipliers of ``x`` in ``v · f(w x + b)``, number by number (section 3.5)."""
    assert callable(f)
    found = [0.0] * len(x)
    for hidden in range(len(w)):
        z0 = float(b[hidden]) + sum(float(w[hidden, i] * x0[i]) for i in range(len(x)))
        products = [float(w[hidden, i] * (x[i] - x0[i])) for i in range(len(x))]
        up, down = sum(p for p in products if p > 0), sum(p for p in products if p < 0)
        if reveal:
            of_up = 0.5 * (f(z0 + up) - f(z0)) + 0.5 * (f(z0 + down + up) - f(z0 + down))
            of_down = 0.5 * (f(z0 + down) - f(z0)) + 0.5 * (f(z0 + up + down) - f(z0 + up))
            m_up, m_down = (of_up / up if up else 0.0), (of_down / down if down else 0.0)
        else:
            m_up = m_down = (f(z0 + up + down) - f(z0)) / (up + down)
        for i, product in enumerate(products):
            mean = (m_up + m_down) / 2
            m = m_up if product > 0 else m_down if product < 0 else mean
            found[i] += float(v[hidden] * w[hidden, i]) * m
    return found


def _assigned(z: Tensor) -> Tensor:
    z[z < 0] = 0
    return z


class TwoLayers(nn.Module):
    def __init__(self, w: Tensor, b: Tensor, v: Tensor, f: object) -> None:
        super().__init__()
        self.w, self.b, self.v = (nn.Parameter(each) for each in (w, b, v))
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        assert callable(self.f)
        return functional.linear(self.f(functional.linear(x, self.w, self.b)), self.v[None])


@pytest.mark.parametrize("rule", ["rescale", "revealcancel", "auto"])
@pytest.mark.parametrize(
    ("f", "plain"),
    [
        (torch.relu, lambda z: max(z, 0.0)),
        (torch.sigmoid, lambda z: 1 / (1 + math.exp(-z))),
        (torch.tanh, math.tanh),
    ],
)
def test_two_dense_layers(rule: RuleName, f: object, plain: object) -> None:
    w, b, v, x, x0 = (
        numbers(7, 5),
        numbers(7, seed=1),
        numbers(7, seed=2),
        numbers(5, seed=3),
        numbers(5, seed=4),
    )
    x0[2] = x[2]  # no difference: half of each multiplier
    found = attribute(
        TwoLayers(w, b, v, f), x[None], "output:0", reference=x0, rule=rule, dtype=torch.float64
    )
    expected = two_layers_slowly(w, b, v, x, x0, rule != "rescale", plain)
    assert found.multipliers[0].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert torch.equal(found.contributions, found.multipliers * (x - x0))


def test_the_papers_minimum() -> None:
    """Section 3.5.3: of min(a, b) = a - relu(a - b) Rescale gives all to one, RevealCancel half to each."""
    weights = torch.tensor([[1.0, 0.0], [1.0, -1.0]], dtype=torch.float64)  # a, a - b
    net = TwoLayers(weights, torch.zeros(2), torch.tensor([1.0, -1.0]), torch.relu)
    x = torch.tensor([[3.0, 2.0]], dtype=torch.float64)
    by_rescale, by_reveal = (
        attribute(net, x, "output:0", rule=rule, dtype=torch.float64).contributions[0].tolist()
        for rule in ("rescale", "revealcancel")
    )
    assert by_rescale == pytest.approx([0, 2])
    assert by_reveal == pytest.approx([1, 1])


def test_a_convolution_is_a_dense_layer_of_its_windows() -> None:
    kernel, b, v = numbers(3, 2, 2, 2), numbers(3, seed=1), numbers(3 * 4 * 4, seed=2)
    x, x0 = numbers(2, 5, 5, seed=3), numbers(2, 5, 5, seed=4)
    x0[0, 1:3] = x[0, 1:3]
    columns = (
        functional.conv2d(torch.eye(50, dtype=torch.float64).view(50, 2, 5, 5), kernel).flatten(1).mT
    )  # (48, 50)
    conv, dense = nn.Conv2d(2, 3, 2).double(), nn.Linear(48, 1).double()
    with torch.no_grad():
        conv.weight.copy_(kernel)
        conv.bias.copy_(b)  # type: ignore[union-attr]
        dense.weight.copy_(v[None])
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), dense)
    rule: RuleName
    for rule in ("rescale", "revealcancel"):
        expected = two_layers_slowly(
            columns,
            b.repeat_interleave(16),
            v,
            x.flatten(),
            x0.flatten(),
            rule == "revealcancel",
            lambda z: max(z, 0.0),
        )
        found = attribute(net, x[None], "output:0", reference=x0, rule=rule, dtype=torch.float64)
        assert found.multipliers.flatten().tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_auto_is_revealcancel_behind_dense_layers_and_rescale_behind_convolutions() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Identity(), nn.Dropout(),
        nn.Unflatten(1, (2, 4)), nn.GELU(), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2),
    )  # fmt: skip
    for norm in (net[1], net[6]):  # weights of both signs: they turn parts round
        nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
        nn.init.normal_(norm.weight)  # type: ignore[arg-type]
    x = numbers(3, 1, 6, 6)
    by_layer: RuleLike = {"default": "rescale", "10": "revealcancel", "13": "revealcancel"}
    rules: tuple[RuleLike, ...] = ("auto", by_layer, "rescale", "revealcancel")
    auto, named, *rest = (attribute(net, x, "output:1", rule=rule, dtype=torch.float64) for rule in rules)
    assert torch.allclose(auto.contributions, named.contributions, atol=1e-14)
    assert not any(torch.allclose(auto.contributions, each.contributions, atol=1e-6) for each in rest)
    assert all(float(each.delta.relative.max()) < 1e-12 for each in (auto, named, *rest))


@pytest.mark.parametrize(
    "rectifier",
    [
        lambda z: torch.where(z > 0, z, 0.0),
        lambda z: torch.where(z <= 0, torch.zeros_like(z), z),
        lambda z: z * (z > 0),
        lambda z: (z > 0).to(z.dtype) * z,
        lambda z: z * ~(z < 0),
        lambda z: z.masked_fill(z < 0, 0),
        lambda z: torch.clamp(z, min=0),
        lambda z: torch.maximum(z, torch.zeros_like(z)),
        lambda z: functional.threshold(z, 0, 0),
        _assigned,
    ],
)
def test_rectifiers_by_another_name(rectifier: object) -> None:
    weights = numbers(7, 5), numbers(7, seed=1), numbers(7, seed=2)
    x, x0 = numbers(2, 5, seed=3), numbers(5, seed=4)
    for rule in ("auto", "rescale", "revealcancel"):
        found, plain = (
            attribute(TwoLayers(*weights, each), x, "output:0", reference=x0, rule=rule, dtype=torch.float64)
            for each in (rectifier, torch.relu)
        )
        assert torch.allclose(found.contributions, plain.contributions, atol=1e-12)
        assert float(found.delta.relative.max()) < 1e-12


def test_a_mask_of_what_was_overwritten_since() -> None:
    def overwritten(z: Tensor) -> Tensor:
        tenth, mask = 0.1 * z, z > 0
        z.mul_(3)
        return torch.where(mask, tenth, 0.0) + z

    weights = numbers(7, 5), numbers(7, seed=1), numbers(7, seed=2)
    net, x = TwoLayers(*weights, overwritten), numbers(2, 5, seed=3)
    found = attribute(
        net, x, "output:0", reference=numbers(5, seed=4), rule="revealcancel", dtype=torch.float64
    )
    assert float(found.delta.relative.max()) < 1e-12


def test_leaky_rectifiers_by_their_masks() -> None:
    weights = numbers(7, 5), numbers(7, seed=1), numbers(7, seed=2)
    x, x0 = numbers(2, 5, seed=3), numbers(5, seed=4)
    found, plain = (
        attribute(TwoLayers(*weights, each), x, "output:0", reference=x0, dtype=torch.float64)
        for each in (lambda z: torch.where(z > 0, z, 0.1 * z), lambda z: functional.leaky_relu(z, 0.1))
    )
    assert torch.allclose(found.contributions, plain.contributions, atol=1e-12)


def test_max_pooling_gives_all_to_the_winner_of_the_larger_maximum() -> None:
    pool = nn.Sequential(nn.MaxPool1d(3), nn.Flatten(0))
    x = torch.tensor([[[1.0, 5.0, 2.0]]])
    x0 = torch.tensor([[[4.0, 3.0, 2.0]]])

    def first(activations: object) -> Tensor:
        return activations["output"][:1]  # type: ignore[no-any-return, index]

    assert attribute(pool, x, first, reference=x0).contributions.flatten().tolist() == [0, 1, 0]
    assert attribute(pool, x0, first, reference=x).contributions.flatten().tolist() == [0, -1, 0]


def test_a_product_gives_each_factor_the_mean_of_the_other() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1] * x[:, 1:]

    found = attribute(Product(), torch.tensor([[3.0, 5.0]]), "output:0", reference=torch.tensor([1.0, 2.0]))
    assert found.multipliers.tolist() == [[3.5, 2.0]]
    assert float(found.contributions.sum()) == 13.0
