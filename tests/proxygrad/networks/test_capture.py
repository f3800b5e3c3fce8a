"""Reading: values as they were returned, calls by number, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from proxygrad.errors import NetworkError, UnknownLayer
from proxygrad.networks.capture import first_tensor
from proxygrad.networks.network import Network
from tests.support.networks import Overwriting, Small, Unrolled, small


def images(count: int = 2, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand((count, channels, size, size), generator=torch.Generator().manual_seed(0))


def hooks_of(module: nn.Module) -> Iterator[int]:
    return (len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules())


def test_values_are_those_before_later_in_place_operations() -> None:
    """`conv` is overwritten by an in-place rectifier, then by a product; a plain hook's tensor too."""
    module, x = Overwriting().eval(), images()
    seen: dict[str, Tensor] = {}
    module.conv.register_forward_hook(lambda _, __, output: seen.update(conv=output))
    expected = nn.functional.conv2d(x, module.conv.weight, module.conv.bias, padding=1)
    found = Network(module, (3, 16, 16)).read(x, ["conv", "relu", "head"])
    assert torch.equal(found["conv"], expected)
    assert torch.equal(found["relu"], expected.relu())
    module(x)
    assert not torch.allclose(seen["conv"], expected), (
        "the network overwrites nothing: the test shows nothing"
    )


def test_gradients_of_a_value_that_was_overwritten_are_its_own() -> None:
    module, x = Overwriting().eval(), images().requires_grad_()
    found = Network(module, (3, 16, 16)).read(x, ["conv", "head"])
    (grad,) = torch.autograd.grad(found["conv"].square().sum(), x)
    (expected,) = torch.autograd.grad(module.conv(x).square().sum(), x)
    torch.testing.assert_close(grad, expected)


def test_several_layers_take_one_pass_that_ends_at_the_deepest() -> None:
    class Counting(nn.Conv2d):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.runs += 1
            return super().forward(x)

    network = Network(
        nn.Sequential(Counting(3, 4, 1), nn.ReLU(), Counting(4, 4, 1), Counting(4, 4, 1)), (3, 8, 8)
    )
    assert not network.batching.alone
    Counting.runs = 0
    found = network.read(images(size=8), ["2", "0", "1"])
    assert list(found) == ["2", "0", "1"]
    assert Counting.runs == 2
    assert network.read(images(size=8), []) == {}


def test_each_layer_read_together_is_the_same_as_alone() -> None:
    network, x = small(), images()
    names = [layer.name for layer in network.layers]
    together = network.read(x, [*names, "output"])
    assert all(torch.equal(together[name], network.activations(x, name)) for name in names)
    assert torch.equal(together["output"], together["fc"])


def test_calls_are_counted_from_1_and_the_plain_name_is_the_first() -> None:
    module, x = Unrolled(steps=3).eval(), images()
    network = Network(module, (3, 16, 16))
    found = network.read(x, ["step", "step@1", "step@2", "step@3"])
    first = module.step(x)
    assert torch.equal(found["step"], first)
    assert torch.equal(found["step@1"], first)
    second = module.step(first.relu())
    assert torch.equal(found["step@2"], second)
    assert torch.equal(found["step@3"], module.step(second.relu()))
    assert [layer.name for layer in network.layers][:6] == [
        "step",
        "relu",
        "step@2",
        "relu@2",
        "step@3",
        "relu@3",
    ]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("step@4", r"layer 'step@4' does not run: its module was called 3 time\(s\), and not 4"),
        ("spare", "layer 'spare' does not run when the network does"),
        ("noise", "layer 'noise' returns no floating-point tensor"),
    ],
)
def test_calls_that_give_nothing_say_why_and_leave_no_hooks(layer: str, message: str) -> None:
    network = Network(Unrolled(steps=3), (3, 16, 16))
    with pytest.raises(NetworkError, match=message):
        network.read(images(), ["step", layer])
    assert not any(hooks_of(network.module))


@pytest.mark.parametrize("layer", ["step@0", "step@x", "step@", "stepp@2", "@2", ""])
def test_names_that_mean_no_call_are_unknown_layers(layer: str) -> None:
    with pytest.raises(UnknownLayer, match="unknown layer"):
        Network(Unrolled(steps=3), (3, 16, 16)).read(images(), [layer])


def test_no_hook_is_left_when_the_network_fails() -> None:
    network = small()
    network.module.fc = nn.Linear(7, 4)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network.read(images(), ["conv", "fc"])
    assert not any(hooks_of(network.module))


def test_a_network_that_catches_exceptions_is_stopped_all_the_same() -> None:
    class Stubborn(Small):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return super().forward(x)
            except Exception:
                return torch.zeros(1)

    x = images()
    assert torch.equal(
        Network(Stubborn(), (3, 16, 16)).activations(x, "conv2"), small().activations(x, "conv2")
    )


class Pair(NamedTuple):
    ranks: Tensor
    value: Tensor


@dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor


VALUE, INTEGER = torch.ones(2), torch.ones(2, dtype=torch.int64)


@pytest.mark.parametrize(
    "output",
    [
        VALUE,
        (VALUE, VALUE + 1),
        [None, VALUE],
        {"out": VALUE, "aux": VALUE + 1},
        Pair(INTEGER, VALUE),
        Answer(None, VALUE),
        ((), {"a": (INTEGER, Answer(None, VALUE))}),
    ],
)
def test_of_several_tensors_the_first_floating_point_one_counts(output: Any) -> None:
    assert first_tensor(output) is VALUE


@pytest.mark.parametrize("output", [None, INTEGER, (), "text", {"a": [None, 3]}, Answer])
def test_without_a_floating_point_tensor_there_is_none(output: Any) -> None:
    assert first_tensor(output) is None
