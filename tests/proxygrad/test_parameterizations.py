"""Every parameterization can be any image it promises to be, at any size, and nothing outside [0, 1]."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest
from proxygrad.images import start_image
from proxygrad.maximization.ascent import maximize
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Channel
from proxygrad.parameterizations import (
    COLOR_SQRT,
    MARGIN,
    Fourier,
    Maco,
    Parameterization,
    Shape,
    amplitudes,
    frequencies,
    parameterization,
    spectrum,
)
from proxygrad.spec.settings import START_NOISE, ParameterizationName
from tests.support.networks import Small

NAMES: tuple[ParameterizationName, ...] = get_args(ParameterizationName)
SIZE = (63, 96)
SHAPES: list[Shape] = [(3, 32, 32), (1, 17, 17), (3, 15, 20), (1, 28, 9), (6, 12, 10)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    """``(1, 3, *SIZE)``: a building, one of scikit-learn's two photographs."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the photograph ships with scikit-learn")
    levels = torch.from_numpy(datasets.load_sample_image("china.jpg").copy())[:378, :576]  # (378, 576, 3)
    planes = levels.permute(2, 0, 1).unsqueeze(0).float() / 255
    return torch.nn.functional.avg_pool2d(planes, 6)


def signal_to_noise_db(image: Tensor, target: Tensor) -> float:
    """Peak signal to noise; 1/255 off everywhere is 48 dB."""
    return -10 * math.log10(float((image - target).square().mean()))


def root(channels: int, dtype: torch.dtype) -> Tensor:
    """lucid's matrix, and for channels that are no RGB the mean length of its rows, each for itself."""
    matrix = torch.tensor(COLOR_SQRT, dtype=dtype)
    return matrix if channels == 3 else matrix.norm(dim=1).mean() * torch.eye(channels, dtype=dtype)


def colored(planes: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", root(planes.shape[1], planes.dtype), planes)


def decorrelated(images: Tensor) -> Tensor:
    logits = torch.logit(images, eps=MARGIN) / 4
    return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(root(images.shape[1], images.dtype)), logits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_images_stay_in_range_and_follow_the_seed(name: ParameterizationName, shape: Shape) -> None:
    made = parameterization(name, shape)
    start = made.start(generator(3))
    assert torch.equal(start, made.start(generator(3)))
    assert not torch.equal(start, made.start(generator(4)))
    far = made.project(torch.stack([start, 1e3 * start, torch.zeros_like(start)]))
    images = made.decode(far)
    assert images.shape == (3, *shape)
    assert images.dtype == torch.float32
    assert bool(torch.isfinite(images).all())
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_pixels_start_where_existing_results_started() -> None:
    assert torch.equal(
        parameterization("pixels", (3, 9, 8)).start(generator(5)), start_image((3, 9, 8), seed=5)
    )


def test_fourier_starts_as_noisy_as_pixels() -> None:
    made = parameterization("fourier", (3, 64, 64))
    images = made.decode(torch.stack([made.start(generator(seed)) for seed in range(16)]))
    assert float(images.mean()) == pytest.approx(0.5, abs=0.01)
    assert float((images - 0.5).std()) == pytest.approx(START_NOISE / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("name", ["pixels", "fourier"])
def test_the_noise_of_the_start_may_be_chosen_down_to_plain_gray(name: ParameterizationName) -> None:
    made = parameterization(name, (3, 9, 8))
    gray, little, more = (
        made.decode(made.start(generator(5), noise).unsqueeze(0)) - 0.5 for noise in (0.0, 0.01, 0.02)
    )
    assert not bool(gray.any())
    torch.testing.assert_close(more, 2 * little, rtol=0, atol=1e-4)
    assert float(little.std()) == pytest.approx(0.01 / math.sqrt(3), rel=0.2)


@pytest.mark.parametrize("name", ["pixels", "fourier"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_given_image_comes_back_level_for_level(name: ParameterizationName, shape: Shape) -> None:
    levels = torch.randint(0, 256, (2, *shape), generator=generator())
    levels[0, 0, 0, :2] = torch.tensor([0, 255])
    made = parameterization(name, shape)
    back = made.decode(made.encode(levels / 255))
    assert torch.equal((back * 255).round().long(), levels)
    assert float((back - levels / 255).abs().max()) <= MARGIN + 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_decoded_images_encode_to_the_same_image(name: ParameterizationName) -> None:
    made = parameterization(name, (3, 15, 20))
    images = made.decode(made.start(generator()).unsqueeze(0)).clamp(2 * MARGIN, 1 - 2 * MARGIN)
    torch.testing.assert_close(made.decode(made.encode(images)), images, rtol=0, atol=5e-3)


def fit(made: Parameterization, target: Tensor) -> Tensor:
    """The parameterization's best attempt at an image by least squares, from its random start."""
    params = made.start(generator()).unsqueeze(0).requires_grad_()
    optimizer = torch.optim.Adam([params], lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=250)
    for _ in range(250):
        optimizer.zero_grad()
        (made.decode(params) - target).square().sum().backward()
        optimizer.step()
        schedule.step()
        params.data = made.project(params.data)
    return made.decode(params).detach()


@pytest.mark.parametrize(("name", "least_db"), [("pixels", 60.0), ("fourier", 33.0)])
def test_each_can_fit_a_photograph(photograph: Tensor, name: ParameterizationName, least_db: float) -> None:
    fitted = fit(parameterization(name, (3, *SIZE)), photograph)
    assert signal_to_noise_db(fitted, photograph) > least_db


def test_maco_can_fit_a_photograph_of_its_magnitude(photograph: Tensor) -> None:
    """Of the photograph brought to MACO's mean and contrast, with its own magnitude or with 1/f."""
    own = Maco((3, *SIZE), magnitude=spectrum(photograph))
    planes = decorrelated(photograph)
    planes = planes - planes.mean(dim=(2, 3), keepdim=True)
    target = torch.sigmoid(4 * colored(planes / planes.std(dim=(2, 3), keepdim=True)))
    assert signal_to_noise_db(fit(own, target), target) > 45
    assert signal_to_noise_db(fit(Maco((3, *SIZE)), target), target) > 16  # it may only rearrange
    assert signal_to_noise_db(own.decode(own.encode(photograph)), target) > 45


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_reach_every_parameter(name: ParameterizationName, shape: Shape) -> None:
    made = parameterization(name, shape)
    params = made.start(generator()).unsqueeze(0).requires_grad_()
    weights = torch.rand((1, *shape), generator=generator(1))
    (gradient,) = torch.autograd.grad((made.decode(params) * weights).sum(), params)
    silent = (gradient[0] == 0).nonzero().tolist()
    # A real image's mean has no phase, nor have the highest frequencies of even sides.
    own_mirror = {0, *([shape[1] // 2] if shape[1] % 2 == 0 else [])}
    columns = {0, *([shape[2] // 2] if shape[2] % 2 == 0 else [])}
    if name != "maco":
        assert silent == []
    assert all(row in own_mirror and column in columns for _, row, column in silent)


@pytest.mark.parametrize("name", NAMES)
def test_lanes_are_independent(name: ParameterizationName) -> None:
    made = parameterization(name, (3, 15, 20))
    params = torch.stack([made.start(generator(seed)) for seed in range(3)]).requires_grad_()
    images = made.decode(params)
    torch.testing.assert_close(made.decode(params[1:2])[0], images[1], rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(images[1].square().sum(), params)
    assert bool((gradient[1] != 0).any())
    assert not bool(gradient[[0, 2]].any())


@pytest.mark.parametrize("size", [(6, 5), (5, 8)])
def test_fourier_is_a_sum_of_plane_waves_with_1_over_f(size: tuple[int, int]) -> None:
    """Restated slowly in float64, wave by wave."""
    height, width = size
    made = Fourier((1, height, width))
    params = torch.randn((1, 1, height, width), generator=generator(), dtype=torch.float64)
    rows = torch.arange(height, dtype=torch.float64).unsqueeze(1)
    columns = torch.arange(width, dtype=torch.float64)
    scales = torch.empty((height, width), dtype=torch.float64)
    planes = torch.zeros((height, width), dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            f = math.hypot(min(row, height - row) / height, min(column, width - column) / width)
            scales[row, column] = 1 / max(f, 1 / max(size))
    scales /= scales.square().mean().sqrt()
    for row in range(height):
        for column in range(width):
            angle = 2 * math.pi * (row * rows / height + column * columns / width)
            wave = (angle.cos() + angle.sin()) / math.sqrt(height * width)
            planes += float(params[0, 0, row, column] * scales[row, column]) * wave
    gray = float(root(1, torch.float64))
    expected = 1 / (1 + torch.exp(-4 * gray * planes))
    torch.testing.assert_close(made.decode(params)[0, 0], expected, rtol=0, atol=1e-6)


def test_unit_parameters_have_the_colors_of_natural_images() -> None:
    made = parameterization("fourier", (3, 64, 64))
    params = torch.randn((64, 3, 64, 64), generator=generator(), dtype=torch.float64)
    logits = torch.logit(made.decode(params)) / 4  # deviation from gray, to first order
    covariance = torch.cov(logits.permute(1, 0, 2, 3).flatten(1))
    matrix = root(3, torch.float64)
    torch.testing.assert_close(covariance, matrix @ matrix.T, rtol=0.1, atol=0.003)


@pytest.mark.parametrize("shape", SHAPES)
def test_maco_never_changes_the_magnitude(shape: Shape) -> None:
    channels, height, width = shape
    magnitude = torch.rand((channels, height, width // 2 + 1), generator=generator(), dtype=torch.float64)
    magnitude = magnitude + magnitude.flip(1).roll(1, 1)  # as of a real image, in its own columns
    made = Maco(shape, magnitude=magnitude)
    phases = 10 * torch.randn((2, *magnitude.shape), generator=generator(1), dtype=torch.float64)
    found = torch.fft.rfft2(decorrelated(made.decode(phases))).abs()
    found = found / found.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    magnitude[:, 0, 0] = 0
    expected = magnitude / magnitude.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_magnitude_gives_unit_variance(shape: Shape) -> None:
    """Also one that no real image has, unequal where two coefficients share a wave."""
    channels, height, width = shape
    made = Maco(shape, magnitude=torch.rand((channels, height, width // 2 + 1), generator=generator()))
    images = made.decode(made.start(generator(1)).unsqueeze(0).double())
    assert MARGIN < float(images.min()) < float(images.max()) < 1 - MARGIN  # nothing is cut off below
    variance = decorrelated(images).var(dim=(2, 3), correction=0)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=1e-3, atol=0)


def test_macos_default_magnitude_is_1_over_f() -> None:
    made = Maco((3, 8, 7))
    wanted = amplitudes(frequencies((8, 7)))[:, :4]
    wanted[0, 0] = 0
    ratio = made.magnitude[0].double()[wanted > 0] / wanted[wanted > 0]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-5, atol=0)


@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("name", NAMES)
def test_networks_of_other_channels_than_rgb_get_images_of_them(
    name: ParameterizationName, channels: int
) -> None:
    network = Network(Small(channels=channels), (channels, 16, 16))
    found = maximize(network, Channel("conv2", 1), parameterization=name, steps=8, step_size=0.05)
    assert found.image.shape == (channels, 16, 16)
    assert found.activation > found.start_activation


@pytest.mark.parametrize("name", ["pixels", "fourier"])
def test_ascent_may_start_from_plain_gray(name: ParameterizationName) -> None:
    network = Network(Small(), (3, 16, 16))
    gray = network.activations(torch.full((1, 3, 16, 16), 0.5), "conv2")[0, 1].mean()
    for seed in (0, 1):
        found = maximize(
            network, Channel("conv2", 1), parameterization=name, start_noise=0, seed=seed, steps=8
        )
        assert found.start_activation == pytest.approx(float(gray), rel=1e-5)
        assert found.activation > found.start_activation


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'pixels', 'fourier' and 'maco'"):
        parameterization("cppn", (3, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"magnitude of shape \(3, 8, 8\), not \(3, 8, 5\)"):
        Maco((3, 8, 8), magnitude=torch.ones(3, 8, 8))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8), r"shape \(3, 8, 8\) .* valid: floating-point images, \(number, channels"),
        (torch.rand(0, 3, 8, 8), r"shape \(0, 3, 8, 8\)"),
        (torch.ones(1, 3, 8, 8, dtype=torch.uint8), "type torch.uint8"),
        (torch.full((1, 3, 8, 8), 255.0), "values from 255 to 255; valid: 0 to 1"),
        (torch.full((1, 3, 8, 8), float("nan")), "values from nan to nan"),
    ],
)
def test_what_has_no_spectrum_is_named(images: Tensor, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        spectrum(images)
