"""Steps have the length that was asked for, whatever the scale of the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from proxygrad.optim import update_rules
from proxygrad.optim.gradient_activations import gaf as gradient_activation
from proxygrad.optim.gradient_activations import normalize
from proxygrad.optim.update_rules import StepContext, UpdateRule
from proxygrad.spec.settings import GafName, UpdateName


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_a_step_has_the_length_asked_for_at_any_scale(scale: float) -> None:
    gradient = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * scale
    images = torch.full((2, 3, 8, 8), 0.5)
    moved = update_rules.normalized_ascent(images, gradient, torch.tensor([0.01, 0.02])) - images
    lengths = moved.double().square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(lengths, torch.tensor([0.01, 0.02], dtype=torch.float64), rtol=1e-4, atol=0)
    assert torch.equal(moved.sign(), gradient.sign())


def test_an_image_without_gradient_stays_and_its_neighbor_moves() -> None:
    gradient = torch.zeros((2, 1, 4, 4))
    gradient[1] = 1.0
    images = torch.full((2, 1, 4, 4), 0.5)
    after = update_rules.normalized_ascent(images, gradient, torch.tensor([0.1, 0.1]))
    assert torch.equal(after[0], images[0])
    torch.testing.assert_close(after[1], torch.full((1, 4, 4), 0.6))


def test_values_stay_between_0_and_1() -> None:
    images = torch.tensor([0.05, 0.95]).view(1, 1, 1, 2)
    after = update_rules.normalized_ascent(
        images, torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2), torch.tensor([0.5])
    )
    assert after.flatten().tolist() == [0.0, 1.0]


def test_the_rate_falls_linearly_to_the_last_step() -> None:
    rates = [update_rules.rate(0.8, step, 4) for step in range(4)]
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])


UPDATE_NAMES: tuple[UpdateName, ...] = get_args(UpdateName)
GAF_NAMES: tuple[GafName, ...] = get_args(GafName)


def gradients(count: int, lanes: int = 3) -> list[Tensor]:
    own = torch.Generator().manual_seed(1)
    return [torch.randn((lanes, 2, 4, 5), generator=own, dtype=torch.float64) * 1e-3 for _ in range(count)]


def run(rule: UpdateRule, params: Tensor, grads: list[Tensor], rates: Tensor) -> Tensor:
    state = update_rules.new_state(rule, params)
    for count, gradient in enumerate(grads):
        params = rule.step(params, gradient, state, StepContext(rates, torch.full((len(params),), count)))
    return params


def torch_optimum(make: Callable[[list[Tensor]], torch.optim.Optimizer], grads: list[Tensor]) -> Tensor:
    """One lane at a time, by torch's own optimizer, which descends: hence the sign."""
    ends = []
    for lane in range(len(grads[0])):
        params = torch.zeros_like(grads[0][lane]).requires_grad_()
        optimizer = make([params])
        for gradient in grads:
            root_mean_square = gradient[lane].square().mean().sqrt()
            params.grad = -gradient[lane] / root_mean_square
            optimizer.step()
        ends.append(params.detach())
    return torch.stack(ends)


def test_adam_is_torchs_adam_of_the_normalized_gradient() -> None:
    grads = gradients(7)
    ours = run(update_rules.Adam(), torch.zeros_like(grads[0]), grads, torch.full((3,), 0.05))
    theirs = torch_optimum(lambda params: torch.optim.Adam(params, lr=0.05), grads)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_sgd_is_torchs_sgd_with_momentum_of_the_normalized_gradient() -> None:
    grads = gradients(7)
    ours = run(update_rules.Sgd(), torch.zeros_like(grads[0]), grads, torch.full((3,), 0.05))
    theirs = torch_optimum(lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9), grads)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", UPDATE_NAMES)
@pytest.mark.parametrize("gaf", GAF_NAMES)
def test_lanes_join_with_rates_and_steps_of_their_own(name: UpdateName, gaf: GafName) -> None:
    rule = update_rules.update_rule(name, gaf)
    grads = gradients(6)
    rates = torch.tensor([0.1, 0.02, 0.3])
    alone = [
        run(
            rule,
            torch.zeros((1, 2, 4, 5), dtype=torch.float64),
            [g[i : i + 1] for g in grads[2 * (i == 2) :]],
            r,
        )
        for i, r in enumerate(rates.split(1))
    ]
    params = torch.zeros((2, 2, 4, 5), dtype=torch.float64)
    state, steps = update_rules.new_state(rule, params), torch.zeros(2, dtype=torch.long)
    for count, gradient in enumerate(grads):
        if count == 2:  # the third lane joins late
            newcomer = torch.zeros((1, 2, 4, 5), dtype=torch.float64)
            params, steps = (
                torch.cat([params, newcomer]),
                torch.cat([steps, torch.zeros(1, dtype=torch.long)]),
            )
            fresh = update_rules.new_state(rule, newcomer)
            state = {key: torch.cat([rows, fresh[key]]) for key, rows in state.items()}
        lanes = len(params)
        params = rule.step(params, gradient[:lanes], state, StepContext(rates[:lanes], steps))
        steps = steps + 1
    torch.testing.assert_close(params, torch.cat(alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", UPDATE_NAMES)
@pytest.mark.parametrize("gaf", GAF_NAMES)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_steps_do_not_depend_on_the_gradients_scale(name: UpdateName, gaf: GafName, scale: float) -> None:
    rule = update_rules.update_rule(name, gaf)
    grads = [gradient.float() * 1e3 for gradient in gradients(3)]
    start, rates = torch.zeros_like(grads[0]), torch.tensor([0.1, 0.1, 0.1])
    scaled = run(rule, start, [gradient * scale for gradient in grads], rates)
    torch.testing.assert_close(scaled, run(rule, start, grads, rates), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", UPDATE_NAMES)
@pytest.mark.parametrize("gaf", GAF_NAMES)
def test_no_gradient_no_step(name: UpdateName, gaf: GafName) -> None:
    params = torch.ones((1, 3, 2))
    moved = run(
        update_rules.update_rule(name, gaf), params, [torch.zeros_like(params)] * 2, torch.tensor([0.5])
    )
    assert torch.equal(moved, params)


@pytest.mark.parametrize("gaf", GAF_NAMES)
def test_a_normalized_step_has_its_length_under_every_gradient_activation(gaf: GafName) -> None:
    (gradient,) = gradients(1)
    rates = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    moved = run(update_rules.Normalized(gaf), torch.zeros_like(gradient), [gradient], rates)
    torch.testing.assert_close(moved.square().mean(dim=(1, 2, 3)).sqrt(), rates)
    assert torch.equal(moved.sign(), gradient.sign())


def test_the_whitened_gradient_has_one_magnitude_at_every_frequency_and_the_gradients_phases() -> None:
    """Against the discrete Fourier transform written out, of a gradient with most of it at one frequency."""
    (gradient,) = gradients(1, lanes=1)
    waves = torch.cos(2 * torch.pi * torch.arange(5) / 5)
    gradient = gradient + 0.1 * waves  # (1, 2, 4, 5)
    moved = run(update_rules.Whitened(), torch.zeros_like(gradient), [gradient], torch.tensor([1.0]))

    def transform(image: Tensor) -> Tensor:
        rows, columns = (
            torch.exp(-2j * torch.pi * torch.outer(torch.arange(n), torch.arange(n)).double() / n)
            for n in (4, 5)
        )
        return rows @ image.to(torch.complex128) @ columns

    before, after = transform(gradient[0]), transform(moved[0])
    torch.testing.assert_close(after.abs(), torch.full_like(after.abs(), 20**0.5), rtol=1e-6, atol=0)
    torch.testing.assert_close(after / after.abs(), before / before.abs(), rtol=1e-6, atol=1e-6)
    assert float(before.abs().max() / before.abs().min()) > 100


def test_whitening_does_not_raise_rounding_noise() -> None:
    """A constant gradient has one frequency; the others are 0 but for rounding."""
    gradient = torch.stack([torch.full((3, 7, 9), 0.1), torch.zeros((3, 7, 9))])
    moved = run(update_rules.Whitened(), torch.zeros_like(gradient), [gradient], torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(moved[0], torch.ones((3, 7, 9)))
    assert not moved[1].any()


def test_the_momentum_stays_raw_and_adam_averages_the_bent_gradient() -> None:
    (gradient,) = gradients(1)
    unit = normalize(gradient)
    for rule, kept, expected in (
        (update_rules.Sgd("atan"), "momentum", unit),
        (update_rules.Adam("atan"), "mean", 0.1 * gradient_activation("atan")(unit)),
    ):
        state = update_rules.new_state(rule, gradient)
        rule.step(torch.zeros_like(gradient), gradient, state, StepContext(torch.ones(3), torch.zeros(3)))
        torch.testing.assert_close(state[kept], expected)
        assert tuple(state) == rule.state_names


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'normalized', 'sgd', 'adam', 'whitened'"):
        update_rules.update_rule("lbfgs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'none', 'atan', 'tanh', 'log'"):
        update_rules.update_rule("sgd", "relu")  # type: ignore[arg-type]


def test_noise_of_a_lane_depends_on_its_own_generator_alone() -> None:
    """So a rule that draws noise gives a lane the same image in any company."""

    def context(*seeds: int) -> StepContext:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return StepContext(torch.ones(len(seeds)), torch.zeros(len(seeds)), generators)

    params = torch.zeros((3, 2, 400), dtype=torch.float64)
    together = context(5, 6, 7).noise(params)
    assert torch.equal(together[1:2], context(6).noise(params[:1]))
    assert (together.shape, together.dtype) == (params.shape, params.dtype)
    assert float(together.mean()) == pytest.approx(0, abs=0.1)
    assert float(together.std()) == pytest.approx(1, abs=0.1)
