"""Chains sample what they should: normal distributions, with the bias that theory gives them."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from proxygrad.langevin.rules import (
    AuthorsLangevin,
    ReflectedPixels,
    Sgld,
    divergence,
    langevin_pixels,
    langevin_rule,
)
from proxygrad.optim.update_rules import StepContext, new_state
from proxygrad.parameterizations import Pixels
from proxygrad.spec.langevin import LangevinSettings


def settings(**given: object) -> LangevinSettings:
    return LangevinSettings.model_validate(given).completed()


def context(params: Tensor, step: int, generators: list[torch.Generator]) -> StepContext:
    return StepContext(torch.zeros(len(params)), torch.full((len(params),), step), generators)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_the_variance_of_the_noise_is_step_size_times_temperature() -> None:
    """A sample variance of n normal values has a relative standard error of √(2 / n): within three."""
    params = torch.full((4, 1, 200, 200), 0.5, dtype=torch.float64)
    for step_size, temperature in ((1e-3, 1.0), (0.02, 4.0)):
        rule = Sgld(settings(step_size=step_size, temperature=temperature))
        moved = rule.step(params, torch.zeros_like(params), {}, context(params, 0, generators(4))) - params
        expected, count = step_size * temperature, moved.numel()
        assert abs(float(moved.var()) / expected - 1) < 3 * math.sqrt(2 / count)
        assert abs(float(moved.mean())) < 3 * math.sqrt(expected / count)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_a_normal_target_has_its_mean_and_covariance(temperature: float) -> None:
    """Every pair of pixels is a copy of one target, exp(-½ (x-μ)ᵀ P (x-μ) / T), so there are 800 of them.

    The discretized chain has the covariance T (P - ε P² / 4)⁻¹ exactly.
    """
    precision = torch.tensor([[2.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    mean, step_size = torch.tensor([0.3, -1.0], dtype=torch.float64), 0.1
    rule = Sgld(settings(step_size=step_size, beta=1.0, bounds="none", pull=1e-12, temperature=temperature))
    own = generators(4)
    params = torch.full((4, 1, 200, 2), 0.5, dtype=torch.float64)
    kept = []
    for step in range(900):
        gradient = -(params - mean) @ precision
        params = rule.step(params, gradient, {}, context(params, step, own))
        if step >= 200 and step % 50 == 0:  # 50 steps are 5 autocorrelation times of the slower axis
            kept.append(params.reshape(-1, 2))
    values = torch.cat(kept)  # (copies, 2)
    covariance = temperature * torch.linalg.inv(precision - step_size / 4 * precision @ precision)
    count = len(values)
    errors = (values.mean(dim=0) - mean) / (covariance.diagonal() / count).sqrt()
    assert bool((errors.abs() < 3).all())
    found = values.T.cov()
    diagonal = covariance.diagonal()
    standard = ((covariance.square() + diagonal.outer(diagonal)) / count).sqrt()
    assert bool(((found - covariance).abs() < 3 * standard).all())


def test_the_pull_alone_is_a_normal_distribution() -> None:
    rule = Sgld(settings(step_size=0.01, pull=20.0, bounds="none"))
    own = generators(2)
    params = torch.rand(2, 1, 60, 60, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for step in range(100):
        params = rule.step(params, torch.zeros_like(params), {}, context(params, step, own))
    variance = 1 / 20 / (1 - 0.01 * 20 / 4)
    assert float(params.var()) == pytest.approx(variance, rel=3 * math.sqrt(2 / params.numel()))


def test_reflection_keeps_a_truncated_normal_distribution() -> None:
    """Within [0, 1] the mean of N(0.2, s²) is that of the truncated distribution, by its formula.

    Reflection at the ends errs by the order of √ε; here the mean by less than 1 %.
    """
    spread, center, step_size = 0.3, 0.2, 2e-4
    rule, pixels = Sgld(settings(step_size=step_size, beta=1.0)), ReflectedPixels((1, 40, 40))
    own = generators(2)
    params = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for step in range(2500):
        gradient = -(params - center) / spread**2
        params = pixels.project(rule.step(params, gradient, {}, context(params, step, own)))
    normal = statistics.NormalDist()
    low, high = (0 - center) / spread, (1 - center) / spread
    expected = center + spread * (normal.pdf(low) - normal.pdf(high)) / (normal.cdf(high) - normal.cdf(low))
    assert 0 <= float(params.min()) <= float(params.max()) <= 1
    assert float(params.mean()) == pytest.approx(expected, abs=3 * 0.2 / math.sqrt(params.numel()) + 0.003)


def test_reflection_folds() -> None:
    given = torch.tensor([-0.25, 0.25, 1.25, 2.25, -1.25])
    torch.testing.assert_close(
        ReflectedPixels((1, 1, 5)).project(given), torch.tensor([0.25, 0.25, 0.75, 0.25, 0.75])
    )


def test_the_authors_dynamics_are_the_formula_written_slowly() -> None:
    rule = AuthorsLangevin(settings(variant="authors", step_size=0.1, discriminator_weight=0.3, pull=0.2))
    params = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    slow, own, again = params.clone(), generators(2), generators(2)
    state = new_state(rule, params)
    square, realism_square, velocity = (torch.zeros_like(params) for _ in range(3))
    for step in range(4):
        g, d = torch.sin(7 * slow + step), torch.cos(5 * slow)
        square = 0.9 * square + 0.1 * g**2
        realism_square = 0.9 * realism_square + 0.1 * d**2
        noise = torch.stack([torch.randn(1, 3, 3, generator=each) for each in again]).double()
        mixed = 0.7 * g / (square + 1e-8).sqrt() + 0.3 * d / (realism_square + 1e-8).sqrt()
        direction = mixed + 0.1 / (1 + step**2) * noise - 0.2 * (slow - 0.5)
        velocity = 0.9 * velocity + 0.1 * direction
        slow = slow + 0.1 * velocity

        told = context(params, step, own)
        told = StepContext(told.rates, told.steps_done, own, realism=torch.cos(5 * params))
        params = rule.step(params, torch.sin(7 * params + step), state, told)
        torch.testing.assert_close(params, slow)


def test_schedules_move_geometrically_during_the_burn_in() -> None:
    own = settings(burn_in=10, step_size=1e-3, step_size_start=1e-1, temperature=1.0, temperature_start=100.0)
    assert [own.step_size_at(step) for step in (0, 5, 10, 99)] == pytest.approx([1e-1, 1e-2, 1e-3, 1e-3])
    assert [own.temperature_at(step) for step in (0, 5, 10, 99)] == pytest.approx([100, 10, 1, 1])


def test_each_variant_has_its_rule_and_its_bounds() -> None:
    shape = (1, 4, 4)
    assert isinstance(langevin_rule(settings()), Sgld)
    assert isinstance(langevin_rule(settings(variant="authors")), AuthorsLangevin)
    far = torch.full((1, 1, 4, 4), 1.25)
    for own, expected in (
        (settings(), 0.75),
        (settings(bounds="none", pull=1.0), 1.25),
        (settings(variant="authors"), 1.0),
    ):
        pixels = langevin_pixels(own, shape)
        assert isinstance(pixels, Pixels)
        assert float(pixels.project(far)[0, 0, 0, 0]) == expected


@pytest.mark.parametrize("value", [2.5, -1.5, math.nan, math.inf])
def test_a_step_beyond_the_whole_range_is_a_divergence(value: float) -> None:
    state = torch.full((1, 2, 2), 0.5)
    assert divergence(settings(), state) is None
    state[0, 0, 0] = value
    assert "of a range of ± 0.5" in (divergence(settings(), state) or "")
