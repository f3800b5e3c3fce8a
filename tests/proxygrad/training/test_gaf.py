"""GAF against a slow restatement of the authors' algorithm in float64, and against torch's own optimizers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from proxygrad.errors import InvalidRequest
from proxygrad.spec.settings import GafName
from proxygrad.training.gaf import GAF

FORMULAS: dict[GafName, Callable[[float, float, float], float]] = {
    "none": lambda g, a, b: g,
    "atan": lambda g, a, b: a * math.atan(b * g),
    "tanh": lambda g, a, b: a * math.tanh(b * g),
    "log": lambda g, a, b: math.copysign(a * math.log(1 + b * abs(g)), g),
}
MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.1),
    "sgd momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "sgd nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd dampening": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.3, maximize=True),
    "adam": lambda p: Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adam foreach": lambda p: Adam(p, lr=0.01, foreach=True),
    "adamw": lambda p: AdamW(p, lr=0.01),
    "rmsprop": lambda p: RMSprop(p, lr=0.01, momentum=0.5),
}


def weights() -> list[nn.Parameter]:
    own = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=own, dtype=torch.float64)) for shape in ((3, 2), (4,))]


def gradients(step: int) -> list[Tensor]:
    own = torch.Generator().manual_seed(step + 1)
    scales = (1e-3, 3.0)
    return [
        s * torch.randn(w.shape, generator=own, dtype=torch.float64)
        for s, w in zip(scales, weights(), strict=True)
    ]


def run(
    make: Callable[[list[nn.Parameter]], Optimizer], steps: int = 5
) -> tuple[list[nn.Parameter], Optimizer]:
    params = weights()
    optimizer = make(params)
    for step in range(steps):
        for param, gradient in zip(params, gradients(step), strict=True):
            param.grad = gradient.clone()
        optimizer.step()
    return params, optimizer


def assert_equal(found: list[nn.Parameter], expected: list[nn.Parameter]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("maker", MAKERS)
def test_the_identity_is_torchs_own_optimizer_to_the_bit(maker: str) -> None:
    ours, wrapped = run(lambda p: GAF(MAKERS[maker](p), "none"))
    theirs, plain = run(MAKERS[maker])
    assert_equal(ours, theirs)
    for one, other in zip(ours, theirs, strict=True):
        for key, value in plain.state[other].items():
            assert value is None or torch.equal(wrapped.state[one][key], value)


@pytest.mark.parametrize("name", ["atan", "tanh", "log"])
@pytest.mark.parametrize(
    ("nesterov", "momentum", "decay"), [(False, 0.9, 5e-4), (True, 0.9, 0.01), (False, 0, 0)]
)
def test_sgd_bends_the_step_and_stores_raw_momentum(
    name: GafName, nesterov: bool, momentum: float, decay: float
) -> None:
    found, optimizer = run(
        lambda p: GAF(
            SGD(p, lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay), name, alpha=0.2, beta=10
        )
    )
    for index, (start, end) in enumerate(zip(weights(), found, strict=True)):
        for entry, first in enumerate(start.flatten().tolist()):
            value, stored = first, None
            for step in range(5):
                d = gradients(step)[index].flatten()[entry].item() + decay * value
                stored = d if stored is None else momentum * stored + d
                direction = d + momentum * stored if nesterov else (stored if momentum else d)
                value -= 0.1 * FORMULAS[name](direction, 0.2, 10)
            assert end.flatten()[entry].item() == pytest.approx(value, rel=1e-12)
            if momentum:
                kept = optimizer.state[end]["momentum_buffer"].flatten()[entry].item()
                assert kept == pytest.approx(stored, rel=1e-12)


@pytest.mark.parametrize("name", ["atan", "tanh", "log"])
def test_adam_sees_the_bent_gradient_before_everything_else(name: GafName) -> None:
    found, _ = run(lambda p: GAF(Adam(p, lr=0.01, weight_decay=0.1), name))
    for index, (start, end) in enumerate(zip(weights(), found, strict=True)):
        for entry, first in enumerate(start.flatten().tolist()):
            value, mean, square = first, 0.0, 0.0
            for step in range(5):
                g = FORMULAS[name](gradients(step)[index].flatten()[entry].item(), 0.1, 20) + 0.1 * value
                mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
                m, v = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
                value -= 0.01 * m / (math.sqrt(v) + 1e-8)
            assert end.flatten()[entry].item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("maker", ["sgd momentum", "adam"])
def test_gradients_are_left_as_they_were(maker: str) -> None:
    params, _ = run(lambda p: GAF(MAKERS[maker](p), "log"), steps=1)
    for param, gradient in zip(params, gradients(0), strict=True):
        assert param.grad is not None
        assert torch.equal(param.grad, gradient)


@pytest.mark.parametrize(("maker", "factor"), [("sgd", 2.0), ("adamw", 1.0)])
def test_alpha_is_a_factor_of_the_step_in_sgd_and_cancels_in_adam(maker: str, factor: float) -> None:
    small, _ = run(lambda p: GAF(MAKERS[maker](p), "atan", alpha=0.1), steps=1)
    large, _ = run(lambda p: GAF(MAKERS[maker](p), "atan", alpha=0.2), steps=1)
    for origin, one, two in zip(weights(), small, large, strict=True):
        torch.testing.assert_close(two - origin, factor * (one - origin), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("maker", ["sgd momentum", "adam"])
def test_a_run_goes_on_from_its_state(maker: str) -> None:
    whole, _ = run(lambda p: GAF(MAKERS[maker](p), "tanh", 0.2, 10.0), steps=5)
    params, first = run(lambda p: GAF(MAKERS[maker](p), "tanh", 0.2, 10.0), steps=3)
    second = GAF(MAKERS[maker](params))  # with other numbers: those of the state count
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    copied = copy.deepcopy(second)
    assert copied.param_groups[0]["gaf"] == "tanh"
    assert copied.state is copied.optimizer.state
    for step in (3, 4):
        for param, gradient in zip(params, gradients(step), strict=True):
            param.grad = gradient.clone()
        second.step()
    assert_equal(params, whole)


def test_a_state_from_before_is_taken() -> None:
    params, plain = run(MAKERS["sgd momentum"], steps=2)
    optimizer = GAF(MAKERS["sgd momentum"](params), "log")
    optimizer.load_state_dict(plain.state_dict())
    assert optimizer.param_groups[0]["gaf"] == "log"
    optimizer.step()


def test_groups_have_their_own_function_and_rate() -> None:
    def make(params: list[nn.Parameter]) -> Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": params[:1], "gaf": "none"},
            {"params": params[1:], "lr": 0.5},
        ]
        return GAF(SGD(groups, lr=0.1), "tanh")

    found, _ = run(make, steps=1)
    start, g = weights(), gradients(0)
    torch.testing.assert_close(found[0].detach(), start[0] - 0.1 * g[0])
    torch.testing.assert_close(found[1].detach(), start[1] - 0.5 * 0.1 * torch.tanh(20 * g[1]))


def test_added_groups_get_the_function_too() -> None:
    first, second = weights()
    optimizer = GAF(SGD([first], lr=0.1), "tanh")
    optimizer.add_param_group({"params": [second], "lr": 0.2})
    assert [group["gaf"] for group in optimizer.param_groups] == ["tanh", "tanh"]
    assert len(optimizer.optimizer.param_groups) == 2


def test_schedulers_move_the_rate_that_counts() -> None:
    def make(params: list[nn.Parameter]) -> Optimizer:
        return GAF(SGD(params, lr=0.1, momentum=0.9), "none")

    params, expected = weights(), weights()
    plain = SGD(expected, lr=0.1, momentum=0.9)
    for chosen, optimizer in ((params, make(params)), (expected, plain)):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=6)
        for step in range(4):
            for param, gradient in zip(chosen, gradients(step), strict=True):
                param.grad = gradient.clone()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert_equal(params, expected)
    assert params[0].grad is None


def test_a_closure_is_evaluated_once_with_gradients_on() -> None:
    weight, calls = nn.Parameter(torch.tensor([2.0])), list[bool]()
    optimizer = GAF(Adam([weight], lr=0.1), "atan")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        torch.autograd.backward(loss)
        calls.append(torch.is_grad_enabled())
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert calls == [True]
    assert weight.item() == pytest.approx(1.9)


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1), lambda p: Adam(p, lr=0.1, fused=True)])
def test_a_grad_scaler_hands_over_unscaled_gradients_and_skips_infinite_ones(make: Any) -> None:
    def trained(scale: float | None) -> Tensor:
        weight = nn.Parameter(torch.tensor([0.5, -0.25]))
        optimizer = GAF(make([weight]), "atan")
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for factor in (1.0, float("inf"), 3.0):
            optimizer.zero_grad()
            loss = scaler.scale((weight.square() * (factor if scale or factor < 9 else 0.0)).sum())
            torch.autograd.backward(loss)
            if scale is None and factor == float("inf"):
                continue
            scaler.step(optimizer)
            scaler.update()
        return weight.detach()

    torch.testing.assert_close(trained(2.0**16), trained(None), rtol=1e-6, atol=0)


def test_a_dead_unit_stays_where_it_is() -> None:
    """GAF(0) = 0: the step is 0 where the gradient is."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = GAF(SGD([weight], lr=1.0, momentum=0.9), "log")
    weight.grad = torch.tensor([0.0, 1e-8, -1.0])
    optimizer.step()
    assert weight[0].item() == 1.0
    assert weight[2].item() > 1.0


def sparse() -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = GAF(SGD([weight], lr=0.1))
    weight.grad = torch.sparse_coo_tensor(
        torch.tensor([[1]]), torch.tensor([[1.0, 2.0]]), (3, 2), check_invariants=False
    )
    optimizer.step()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GAF(SGD(weights(), lr=0.1), "relu"), "gaf 'relu'; there are 'none', 'atan'"),  # type: ignore[arg-type]
        (lambda: GAF(SGD(weights(), lr=0.1), alpha=0.0), "gaf_alpha 0.0 is not a number above 0"),
        (lambda: GAF(SGD(weights(), lr=0.1), beta=math.inf), "gaf_beta inf is not"),
        (lambda: GAF(torch.optim.LBFGS(weights())), "LBFGS"),
        (lambda: GAF(SGD(weights(), lr=0.1, differentiable=True)), "differentiable=False"),
        (sparse, "sparse=False"),
    ],
)
def test_what_cannot_be_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        call()
