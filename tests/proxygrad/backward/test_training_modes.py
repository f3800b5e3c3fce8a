"""The surrogate around training: weight gradients, and the modes of autograd that trainers use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import CheckpointError, checkpoint

from proxygrad.backward.sugar import sugar
from proxygrad.backward.surrogate import surrogate
from proxygrad.errors import NetworkError

SLOPE = 0.3
MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "surrogate": lambda: surrogate(SLOPE),
    "sugar": lambda: sugar("bsilu"),
}


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)]
    return nn.Sequential(*layers).to(dtype)


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn((10, 6), generator=torch.Generator().manual_seed(1)).to(dtype)


def backward(loss: Tensor) -> None:
    torch.autograd.backward(loss)


def loss_of(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return functional.cross_entropy(module(x), torch.arange(len(x)) % 3)


def gradients(module: nn.Module) -> list[Tensor]:
    found = [param.grad.clone() for param in module.parameters() if param.grad is not None]
    module.zero_grad()
    return found


def reference(mode: str, module: nn.Module | None = None, x: Tensor | None = None) -> list[Tensor]:
    module = module or network()
    with MODES[mode]():
        loss = loss_of(module, images() if x is None else x)
    backward(loss)
    return gradients(module)


def assert_close(
    found: list[Tensor], expected: list[Tensor], rtol: float = 1e-12, atol: float = 1e-14
) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.to(other), other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_weights_are_those_of_backpropagation_by_hand(mode: str) -> None:
    module, x = network(), images()
    first, second, third = (layer for layer in module if isinstance(layer, nn.Linear))

    def gate(z: Tensor) -> Tensor:
        if mode == "surrogate":
            return torch.where(z > 0, torch.ones_like(z), SLOPE)
        s = 1 / (1 + torch.exp(-z))
        return s + (z + 1.67) * s * (1 - s)

    with torch.no_grad():
        z1 = x @ first.weight.T + first.bias
        a1 = z1.clamp(min=0)
        z2 = a1 @ second.weight.T + second.bias
        a2 = z2.clamp(min=0)
        logits = a2 @ third.weight.T + third.bias
        d3 = logits.softmax(dim=1)
        d3[torch.arange(10), torch.arange(10) % 3] -= 1
        d3 /= 10
        d2 = d3 @ third.weight * gate(z2)
        d1 = d2 @ second.weight * gate(z1)
        by_hand = [d1.T @ x, d1.sum(0), d2.T @ a1, d2.sum(0), d3.T @ a2, d3.sum(0)]
    assert_close(reference(mode), by_hand)


@pytest.mark.parametrize("mode", MODES)
def test_checkpoints_without_reentrance_are_right_with_backward_inside(mode: str) -> None:
    module = network()
    with MODES[mode]():
        backward(loss_of(lambda x: checkpoint(module, x, use_reentrant=False), images()))
    assert_close(gradients(module), reference(mode))


def test_with_backward_outside_they_are_right_or_refused() -> None:
    """Computed again without the block, ReLU saves what `surrogate` does, and less than `sugar`."""
    module = network()
    losses = {}
    for mode, block in MODES.items():
        with block():
            losses[mode] = loss_of(lambda x: checkpoint(module, x, use_reentrant=False), images())
    backward(losses["surrogate"])
    assert_close(gradients(module), reference("surrogate"))
    with pytest.raises(CheckpointError):
        backward(losses["sugar"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", ["Tensor.backward", "torch.autograd.backward", "with a gradient"])
def test_reentrant_checkpoints_are_right_with_backward_inside(mode: str, call: str) -> None:
    module, x = network(), images().requires_grad_()
    with MODES[mode]():
        loss = loss_of(lambda x: checkpoint(module, x, use_reentrant=True), x)
        if call == "Tensor.backward":
            loss.backward()
        elif call == "with a gradient":
            loss.backward(gradient=torch.ones(()).double())
        else:
            torch.autograd.backward([loss])
    assert_close(gradients(module), reference(mode))


@pytest.mark.parametrize("mode", MODES)
def test_a_block_inside_the_forward_pass_is_right_everywhere(mode: str) -> None:
    """Reentrant checkpoints with backward outside, and threads, as of DataParallel."""
    module = network()

    def forward(x: Tensor) -> Tensor:
        with MODES[mode]():
            y: Tensor = module(x)
        return y

    backward(loss_of(lambda x: checkpoint(forward, x, use_reentrant=True), images().requires_grad_()))
    assert_close(gradients(module), reference(mode))
    thread = threading.Thread(target=lambda: backward(loss_of(forward, images())))
    thread.start()
    thread.join()
    assert_close(gradients(module), reference(mode))


def test_a_block_around_it_does_not_reach_other_threads() -> None:
    module = network()
    with surrogate(SLOPE):
        thread = threading.Thread(target=lambda: backward(loss_of(module, images())))
        thread.start()
        thread.join()
    found = gradients(module)
    backward(loss_of(module, images()))
    assert_close(found, gradients(module))


@pytest.mark.parametrize("mode", MODES)
def test_one_block_may_be_entered_again_and_again(mode: str) -> None:
    block, module = MODES[mode](), network()
    for _ in range(2):
        with block:
            loss = loss_of(module, images())
        backward(loss)
        assert_close(gradients(module), reference(mode))


@pytest.mark.parametrize("mode", MODES)
def test_accumulated_gradients_are_those_of_the_whole_batch(mode: str) -> None:
    module, x = network(), images()
    for part in range(2):
        with MODES[mode]():
            y = module(x[5 * part : 5 * part + 5])
        loss = functional.cross_entropy(y, (torch.arange(10) % 3)[5 * part : 5 * part + 5], reduction="sum")
        backward(loss / 10)
    assert_close(gradients(module), reference(mode))


@pytest.mark.parametrize("mode", MODES)
def test_autocast_is_close_to_the_reference(mode: str) -> None:
    module = network(torch.float32)
    with MODES[mode](), torch.autocast("cpu", torch.bfloat16):
        y = module(images(torch.float32))
    assert y.dtype == torch.bfloat16
    backward(functional.cross_entropy(y.float(), torch.arange(10) % 3))
    assert_close(gradients(module), reference(mode), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_train_mode_has_the_values_and_statistics_of_the_plain_network(mode: str) -> None:
    """Batch norm and dropout: the same numbers, the same running statistics, the same random state."""

    def pass_through(block: AbstractContextManager[object]) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)).double()
        with block:
            y = module(images())
        return y.detach(), *(buffer.clone() for buffer in module.buffers()), torch.rand(1)

    for found, expected in zip(pass_through(MODES[mode]()), pass_through(nullcontext()), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_evaluation_without_gradients_is_torchs_own(mode: str) -> None:
    module = network()
    with MODES[mode](), torch.no_grad():
        inside = module(images())
    with MODES[mode](), torch.inference_mode():
        inferred = module(images())
    assert inside.grad_fn is None
    assert torch.equal(inside, module(images()))
    assert torch.equal(inferred, inside)


@pytest.mark.parametrize(
    "rectifier", [torch.relu, lambda z: z.clamp(min=0), lambda z: functional.hardtanh(z, 0.0, 99.0)]
)
def test_second_derivatives_of_rectifiers_are_those_of_leaky_relu(
    rectifier: Callable[[Tensor], Tensor],
) -> None:
    """A gradient penalty: gates are constant, as those of Leaky ReLU are."""
    x = images().requires_grad_()
    weight = torch.randn(
        (6, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).requires_grad_()

    def penalty(rectify: Callable[[Tensor], Tensor]) -> Tensor:
        (first,) = torch.autograd.grad(rectify(x @ weight).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight)
        return second

    with surrogate(SLOPE):
        found = penalty(rectifier)
    torch.testing.assert_close(found, penalty(lambda z: functional.leaky_relu(z, SLOPE)))


def test_second_derivatives_of_smooth_activations_are_refused() -> None:
    x = images().requires_grad_()
    with surrogate(SLOPE):
        y = functional.gelu(x)
    with pytest.raises(NetworkError, match="cannot be differentiated again"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.soak
@pytest.mark.filterwarnings("default")  # torch warns itself while it traces a Function
@pytest.mark.parametrize("mode", MODES)
def test_compiled_networks_have_the_same_gradients(mode: str) -> None:
    """With the backend ``aot_eager``, which needs no compiler; in both orders of use."""
    torch._dynamo.reset()
    module = network()
    compiled = torch.compile(module, backend="aot_eager")
    backward(loss_of(compiled, images()))
    plain = gradients(module)
    for _ in range(2):
        with MODES[mode]():
            loss = loss_of(compiled, images())
        backward(loss)
        assert_close(gradients(module), reference(mode))
    backward(loss_of(compiled, images()))
    assert_close(gradients(module), plain)
    torch._dynamo.reset()
