"""What functions on a module hold on to is the copy's. `tests/corpus/copies.py` has networks that run wrongly
otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad import Network, maximize
from proxygrad.errors import NetworkError
from proxygrad.networks.module_copy import private_copy
from tests.support.networks import Small

SEEN: dict[str, Tensor] = {}


def storing(seen: dict[str, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen["fc"] = output

    return hook


def storing_globally(module: nn.Module, inputs: Any, output: Tensor) -> None:
    SEEN["fc"] = output


@pytest.mark.parametrize("globally", [False, True])
def test_activations_that_a_hook_stores_stay_the_callers_own(globally: bool) -> None:
    module, seen = Small().eval(), SEEN if globally else {}
    module.fc.register_forward_hook(storing_globally if globally else storing(seen))
    module(torch.rand((1, 3, 16, 16)))
    own = seen["fc"]
    maximize(Network(module, (3, 16, 16)), "fc:1", steps=2)
    assert seen["fc"] is own


def test_functions_that_share_a_container_share_its_copy() -> None:
    module, counts = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), [0]

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        counts[0] += 1

    def scale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * counts[0]

    module[0].register_forward_hook(count)
    module[1].register_forward_hook(scale)
    duplicate = private_copy(module)
    first, second = (duplicate(torch.ones(1, 2)) for _ in range(2))
    torch.testing.assert_close(second, 2 * first)
    assert counts == [0]


def test_a_function_without_ties_stays_itself() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    module.act = torch.relu  # type: ignore[assignment]
    module.register_forward_hook(_double)
    duplicate = private_copy(module)
    assert list(duplicate._forward_hooks.values()) == [_double]
    assert duplicate.act is torch.relu


def _double(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * 2


def test_what_a_function_holds_and_cannot_be_copied_is_shared() -> None:
    module, held = nn.Sequential(nn.Linear(2, 2)), [threading.Lock()]
    module.register_forward_hook(lambda module, inputs, output: output * len(held))
    torch.testing.assert_close(private_copy(module)(torch.ones(1, 2)), module.eval()(torch.ones(1, 2)))


def test_a_function_that_calls_itself_can_be_copied() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    own = module[0].forward

    def repeated(x: Tensor, times: int = 3) -> Tensor:
        return own(x) if times == 1 else repeated(own(x), times - 1)

    module[0].forward = repeated
    duplicate = private_copy(module)
    torch.testing.assert_close(duplicate(torch.ones(1, 2)), module(torch.ones(1, 2)))
    duplicate.get_parameter("0.weight").zero_()
    torch.testing.assert_close(duplicate(torch.ones(1, 2))[0], module.get_parameter("0.bias"))


TABLE: dict[str, nn.Module] = {}


class FromATable(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), TABLE[name]
        self.name = name

    def forward(self, x: Tensor) -> Any:
        return TABLE[self.name](self.first(x))


def test_a_copy_that_still_calls_a_module_of_its_owner_is_refused() -> None:
    TABLE["conv"] = nn.Conv2d(4, 4, 3)
    with pytest.raises(NetworkError, match=r"copy still calls the original's 'last' \(Conv2d\), as from"):
        Network(FromATable("conv"), (3, 8, 8))


def test_one_that_calls_what_holds_no_values_is_not() -> None:
    TABLE["act"] = nn.ReLU()
    assert Network(FromATable("act"), (3, 8, 8)).layer("output").units == 4


def test_neither_is_one_whose_module_is_its_own_copy() -> None:
    class Shared(nn.Conv2d):
        def __deepcopy__(self, memo: Any) -> Shared:
            return self

    assert Network(nn.Sequential(Shared(3, 4, 3), nn.ReLU()), (3, 8, 8)).layer("0").units == 4
