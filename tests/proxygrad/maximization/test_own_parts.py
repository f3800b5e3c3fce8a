"""Parts of the method that a caller brings do what the built-in ones do; what is none is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest
from proxygrad.maximization.ascent import maximize
from proxygrad.optim.gradient_activations import normalize
from proxygrad.optim.update_rules import StepContext
from proxygrad.parameterizations import Fourier, Pixels
from tests.support.networks import small

Shape = tuple[int, int, int]


class Halved:
    """Pixels in [0, 0.5]: whatever is drawn is no brighter than gray."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape = shape

    def start(self, generator: torch.Generator, noise: float = 0.05) -> Tensor:
        return torch.rand(self.shape, generator=generator)

    def encode(self, images: Tensor) -> Tensor:
        return 2 * images

    def decode(self, params: Tensor) -> Tensor:
        return params / 2

    def project(self, params: Tensor) -> Tensor:
        return params.clamp(0, 1)


class Ascent:
    """`Normalized`, written again."""

    state_names = ()

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        return params + context.rates_of(params) * normalize(gradient)


def roll(image: Tensor, generator: torch.Generator) -> Tensor:
    return image.roll(int(torch.randint(-4, 5, (), generator=generator)), dims=-1)


def test_a_class_of_ones_own_parameterizes_the_images() -> None:
    found = maximize(small(), ["conv2:1", "conv2:2"], parameterization=Halved, steps=6)
    for each in found:
        assert float(each.image.max()) <= 0.5
        assert each.activation > each.start_activation


def test_an_instance_and_a_function_that_makes_one_are_the_named_one() -> None:
    network = small()
    settings: dict[str, Any] = {"steps": 6}
    named = maximize(network, "conv2:1", preset="max", **settings)
    for own in (Pixels((3, 16, 16)), lambda shape, device: Pixels(shape)):
        assert torch.equal(
            maximize(network, "conv2:1", preset="max", parameterization=own, **settings).image, named.image
        )
    fourier = maximize(network, "conv2:1", parameterization=Fourier, **settings)
    assert torch.equal(fourier.image, maximize(network, "conv2:1", **settings).image)


def test_one_class_serves_starts_of_several_sizes() -> None:
    starts = [torch.full((3, *size), 0.25) for size in ((16, 16), (20, 12))]
    found = maximize(small(), ["conv2:1", "conv2:2"], parameterization=Halved, start=starts, steps=2)
    assert [each.image.shape[1:] for each in found] == [(16, 16), (20, 12)]
    with pytest.raises(
        InvalidRequest, match=r"Pixels decodes to shape \(1, 3, 16, 16\); valid: \(1, 3, 20, 12\)"
    ):
        maximize(small(), "conv2:1", parameterization=Pixels((3, 16, 16)), start=starts[1])


def test_an_update_rule_of_ones_own_is_followed() -> None:
    network = small()
    own = maximize(network, "conv2:1", update=Ascent(), gaf="none", steps=6)
    assert torch.equal(own.image, maximize(network, "conv2:1", gaf="none", steps=6).image)


def test_a_transform_of_ones_own_replaces_robustness() -> None:
    network = small()
    plain, rolled, again, other = (
        maximize(network, "conv2:1", steps=6, seed=seed, transform=transform)
        for transform, seed in ((lambda image, generator: image, 0), (roll, 0), (roll, 0), (roll, 1))
    )
    unmoved = maximize(network, "conv2:1", steps=6, robustness="none")
    torch.testing.assert_close(plain.image, unmoved.image, rtol=0, atol=0.2)
    assert torch.equal(rolled.image, again.image)
    assert not torch.equal(rolled.image, plain.image)
    assert not torch.equal(rolled.image, other.image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"parameterization": "wavelet"},
            "parameterization 'wavelet': Input should be 'pixels', 'fourier' or",
        ),
        ({"parameterization": 3}, "parameterization 3 is of type int; valid: 'pixels', 'fourier', 'maco', a"),
        ({"parameterization": lambda shape: None}, "parameterization fails on the first image: TypeError"),
        ({"parameterization": lambda shape, device: None}, "parameterization NoneType has no method start"),
        ({"parameterization": lambda shape, device: Pixels((3, 8, 8))}, r"decodes to shape \(1, 3, 8, 8\)"),
        ({"update": "lion"}, "update 'lion': Input should be 'normalized', 'sgd', 'adam' or 'whitened'"),
        ({"update": Ascent}, "is no update rule; valid: 'normalized', 'sgd', 'adam', or an object"),
        ({"update": torch.optim.Adam}, "is no update rule"),
        ({"transform": "jitter"}, "transform 'jitter' is no function; valid: transform"),
        ({"transform": lambda image: image}, "transform fails on the first image: TypeError"),
        ({"transform": lambda image, generator: image[..., 1:]}, r"transform returns shape \(1, 3, 16, 15\)"),
        ({"transform": lambda image, generator: None}, "transform returns a NoneType"),
    ],
)
def test_a_part_that_is_none_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        maximize(small(), "conv2:1", **arguments)


def test_values_outside_0_to_1_are_refused() -> None:
    class Bright(Halved):
        def decode(self, params: Tensor) -> Tensor:
            return params + 1

    with pytest.raises(InvalidRequest, match=r"Bright decodes to values from 1.* to 1.*; valid: 0 to 1"):
        maximize(small(), "conv2:1", parameterization=Bright)
