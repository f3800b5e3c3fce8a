"""Interceptors see every call of torch in their block, and can be switched off inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from proxygrad.torch_function import TorchFunctionInterceptor, without_interception


class Recorder(TorchFunctionInterceptor):
    def __init__(self, double: bool = False) -> None:
        super().__init__()
        self.names: list[str] = []
        self.double = double

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.names.append(func.__name__)
        result = func(*args, **kwargs)
        return 2 * result if self.double else result


def test_functions_methods_and_modules_are_seen_and_only_inside() -> None:
    x = torch.tensor([-1.0, 2.0])
    with Recorder() as recorder:
        torch.relu(x)
        x.sigmoid()
        nn.Softplus()(x)
    torch.tanh(x)
    assert [name for name in recorder.names if not name.startswith("_")] == ["relu", "sigmoid", "softplus"]


def test_the_result_may_be_replaced_and_its_own_calls_go_outward() -> None:
    x = torch.tensor([-1.0, 2.0])
    with Recorder() as outer, Recorder(double=True) as inner:
        found = torch.relu(x)
    assert found.tolist() == [0.0, 4.0]
    assert (outer.names[0], inner.names[0]) == ("relu", "relu")


def test_it_can_be_switched_off_for_all_that_stand_around() -> None:
    """Whoever replaces a call must hide what it calls from outer blocks too. `torch._C` has the only way."""
    x = torch.tensor([-1.0, 2.0])
    with Recorder(double=True) as outer, Recorder(double=True) as inner:
        with without_interception():
            found = torch.relu(x)
        assert (outer.names, inner.names) == ([], [])
        torch.relu(x)
    assert (outer.names[0], inner.names[0]) == ("relu", "relu")
    assert found.tolist() == [0.0, 2.0]


def test_a_subclass_must_say_what_it_does() -> None:
    with TorchFunctionInterceptor(), pytest.raises(NotImplementedError):
        torch.relu(torch.ones(1))
