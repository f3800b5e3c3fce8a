"""Interception of calls of torch: one base for everything here that watches or replaces them.

torch reports each call of its functions, methods and modules that Python makes, in place or not, to the
innermost `torch.overrides.TorchFunctionMode` of the thread. TorchScript code calls no Python and is not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode


class TorchFunctionInterceptor(TorchFunctionMode):
    """Context manager: `intercept` stands in for every call of torch in this thread. Blocks nest."""

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of ``func(*args, **kwargs)``, or what takes its place.

        Calls of torch made here go to the next outer interceptor, not to this one.
        """
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.intercept(func, args, kwargs or {})


class BackwardInterceptor(TorchFunctionInterceptor):
    """The same, also of calls within ``loss.backward()`` on the CPU, as reentrant checkpointing makes them.

    torch runs ``Tensor.backward`` as one call, without the interceptor that sees it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.autograd.backward and (kwargs or {}).get("inputs") is None:
            # Of edges, since torch reports the call again for tensors.
            edges = tuple(get_gradient_edge(each) if isinstance(each, Tensor) else each for each in args[0])
            with self:
                return func(edges, *args[1:], **(kwargs or {}))
        if func is Tensor.backward:  # which calls the other
            with self:
                return torch.autograd.backward(*args, **_of_autograd(kwargs or {}))
        return self.intercept(func, args, kwargs or {})


def _of_autograd(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keywords of `Tensor.backward` as those of `torch.autograd.backward`."""
    return {"grad_tensors" if name == "gradient" else name: value for name, value in kwargs.items()}


def without_interception() -> AbstractContextManager[None]:
    """Context manager: calls of torch in this thread go to no interceptor, the outer ones included.

    torch has no public name for it: `torch._C.DisableTorchFunctionSubclass` leaves the modes on.
    """
    return torch._C.DisableTorchFunction()


def function_name(function: Callable[..., Any]) -> str:
    """What a function of torch, a method of tensors or an operator of aten is called: ``relu``, ``add_``."""
    return getattr(function, "__name__", "").partition(".")[0]
