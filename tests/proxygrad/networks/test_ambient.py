"""What is set around a call changes nothing, and is what it was afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from proxygrad import Channel, Engine, Network, Spec, Visualization, maximize
from proxygrad.networks.ambient import differentiable, seeded, undisturbed
from tests.support.networks import Small, small


@contextmanager
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Any] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": default_float64,
}


class Making(Small):
    """Makes tensors on its way: their dtype is torch's default."""

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, x.shape[3]) + torch.arange(x.shape[3]) / 7 + torch.ones(1)
        return super().forward(x + ramp)


def climb(network: Network) -> Visualization:
    return maximize(network, Channel("conv2", 1), robustness="standard", steps=3, progress=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", [Small, Making])
def test_a_callers_mode_changes_nothing(mode: str, net: type[Small]) -> None:
    expected = climb(Network(net(), (3, 16, 16)))
    module = net()
    with MODES[mode]():
        network = Network(module, (3, 16, 16))
        found = climb(network)
        read = network.activations(expected.image.unsqueeze(0), "conv2")[0, 1].mean()
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1e-4)
    assert [*found.curve, found.activation] == pytest.approx([*expected.curve, expected.activation], rel=1e-5)
    assert float(read) == pytest.approx(expected.activation, rel=1e-6)
    assert not found.image.is_inference()


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_a_start_made_under_such_a_mode_will_do(mode: str) -> None:
    network = small()
    with MODES[mode]():
        start = torch.full((3, 16, 16), 0.4)
        found = maximize(network, Channel("conv2", 1), start=start, steps=2)
    assert found.activation > found.start_activation


def test_the_engine_computes_in_float32_whatever_the_default_is() -> None:
    spec = Spec(model="network", layer="conv2", unit=1, steps=3)
    network, other = (Network(Making(), (3, 16, 16)) for _ in range(2))
    with Engine() as engine:
        expected = engine.submit(network, spec).result(60)
        with default_float64():
            found = engine.submit(other, spec).result(60)
    assert found.result.curve == pytest.approx(expected.result.curve, rel=1e-5)
    assert found.activation == pytest.approx(expected.activation, rel=1e-3)


def test_the_default_dtype_stays_the_process_own() -> None:
    seen = []
    with default_float64(), undisturbed():
        assert torch.zeros(1).dtype == torch.float32
        assert torch.zeros(1, dtype=torch.float64).dtype == torch.float64
        assert torch.arange(3).dtype == torch.int64
        assert (torch.arange(3) / 2).dtype == torch.float32
        thread = threading.Thread(target=lambda: seen.append(torch.zeros(1).dtype))
        thread.start()
        thread.join()
    assert seen == [torch.float64]


def test_random_numbers_are_the_same_in_each_pass_and_those_outside_go_on() -> None:
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(torch.device("cpu")):
            draws.append(torch.rand(3))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), before)


def gradient(reentrant: bool, block: AbstractContextManager[None]) -> tuple[int, Tensor]:
    """How often a checkpointed function runs, forward and backward, and the gradient through it."""
    runs = []

    def square(x: Tensor) -> Tensor:
        runs.append(x)
        return x * x

    x = torch.tensor([3.0], requires_grad=True)
    with block:
        y = checkpoint(square, x, use_reentrant=reentrant)
    y.backward()
    assert x.grad is not None
    return len(runs), x.grad


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_does_nothing_in_a_pass_and_its_own_outside(reentrant: bool) -> None:
    runs, found = gradient(reentrant, differentiable())
    assert (runs, found.tolist()) == (1, [6.0])
    runs, found = gradient(reentrant, nullcontext())
    assert (runs, found.tolist()) == (2, [6.0])


def test_layers_inside_a_checkpoint_are_listed() -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Any:
            return checkpoint(lambda z: torch.relu(self.conv(z)), x, use_reentrant=True)

    network = Network(Saving(), (3, 8, 8))
    assert network.unlisted == {}
    assert network.layer("conv").activation == "relu"
