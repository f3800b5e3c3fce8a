"""Capture of activations: one forward pass, with hooks, that ends at the last layer that is read.

A hook on each module counts its calls, keeps what the call in question returned, and ends the pass by raising
once nothing is missing. Nothing is traced, so any control flow will do.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from torch import Tensor, nn

from proxygrad.errors import NetworkError


class ModuleCall(NamedTuple):
    """The ``number``-th call of ``module`` in a forward pass, counted from 1 as they return."""

    module: nn.Module
    number: int


class _Reached(BaseException):
    """Ends a forward pass at its target. No `Exception`: a network that catches those must not stop it."""


class _CaptureHook:
    """A forward hook that keeps what ``calls`` return, and ends the pass after the last of them."""

    def __init__(self, calls: Iterable[ModuleCall], to_the_end: bool) -> None:
        self.missing = set(calls)
        self.returned: dict[ModuleCall, Any] = {}
        self.calls: Counter[nn.Module] = Counter()
        self._to_the_end = to_the_end

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.calls[module] += 1
        call = ModuleCall(module, self.calls[module])
        if call in self.missing:
            self.missing.remove(call)
            self.returned[call] = first_tensor(output)
            if self.missing or self._to_the_end:
                self._keep(call)
        if not (self.missing or self._to_the_end):
            raise _Reached

    def _keep(self, call: ModuleCall) -> None:
        """The network runs on and may overwrite its values in place; nothing runs after the last one."""
        if (value := self.returned[call]) is not None:
            self.returned[call] = value.clone()


def capture_activations(
    module: nn.Module, inputs: Tensor, calls: Mapping[str, ModuleCall | None]
) -> dict[str, Tensor]:
    """Run ``module`` on ``inputs`` and return what each of ``calls`` returned, by its name.

    None stands for the module's own output. Values are those at the moment the call returned; of several
    tensors the first (`first_tensor`). Differentiable. No hook is left behind, whatever happens.

    Raises `NetworkError` for a call that did not take place, or returned no tensor.
    """
    targets = {call for call in calls.values() if call is not None}
    hook = _CaptureHook(targets, to_the_end=None in calls.values())
    output = None
    with ExitStack() as hooks:
        for called in {call.module for call in targets}:
            hooks.callback(called.register_forward_hook(hook).remove)
        with suppress(_Reached):
            output = first_tensor(module(inputs))
    found = {}
    for name, call in calls.items():
        if call in hook.missing:
            raise NetworkError(_absence(name, call, hook.calls[call.module]))
        value = output if call is None else hook.returned[call]
        if value is None:
            raise NetworkError(f"layer {name!r} returns no floating-point tensor")
        found[name] = value
    return found


def _absence(name: str, call: ModuleCall, calls: int) -> str:
    if not calls:
        return f"layer {name!r} does not run when the network does"
    return f"layer {name!r} does not run: its module was called {calls} time(s), and not {call.number}"


def first_tensor(value: Any) -> Tensor | None:
    """The first floating-point tensor of `tensors_in`. None where there is none."""
    return next((tensor for tensor in tensors_in(value) if tensor.is_floating_point()), None)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in ``value``: itself, or in a tuple, list, mapping or dataclass, in their own order and
    however deep."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in _parts(value):
            yield from tensors_in(part)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return ()
