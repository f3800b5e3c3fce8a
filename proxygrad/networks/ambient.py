"""Ambient modes: what is set around a pass and must not change it.

A caller may run us under autocast, with another default dtype, in a process that draws random numbers; a
network may checkpoint its activations, which saves memory that a pass without gradients of weights does not
take, and runs the network again in the backward pass, where nothing of ours is in force. Within `undisturbed`
a network computes as its weights have it: in float32, once.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

from proxygrad.networks.capture import tensors_in
from proxygrad.torch_function import TorchFunctionInterceptor, function_name

#: Kinds of devices that torch has autocast for, and we run on.
AUTOCAST = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, in this thread: no autocast, float32 where torch would take another default dtype, and
    activation checkpointing does nothing."""
    with ExitStack() as stack:
        for kind in AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(_Float32())
        stack.enter_context(_without_checkpointing())
        yield


@contextmanager
def differentiable() -> Iterator[None]:
    """`undisturbed`, and gradients, also inside of a caller's `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad(), undisturbed():
        yield


class _Float32(TorchFunctionInterceptor):
    """Context manager: what is made of no floating-point tensor, and would get the default dtype, is float32.

    The default itself is the process's, and so not ours to change.
    """

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call, in float32 where it names no dtype."""
        named = "dtype" in kwargs or function_name(func) in ("to", "type", "double", "set_default_dtype")
        if named or any(each.is_floating_point() for each in tensors_in((args, kwargs))):
            return func(*args, **kwargs)
        if function_name(func) in _ROUNDED:
            return func(*args, **kwargs, dtype=torch.float32)
        result = func(*args, **kwargs)
        converts = isinstance(result, Tensor) and result.dtype == torch.get_default_dtype()
        return result.float() if converts else result


#: Whose numbers would be others if they were converted afterwards.
_ROUNDED = {"rand", "randn", "linspace", "logspace"}


class Draws(TorchDispatchMode):
    """Context manager: ``any`` says whether random numbers are drawn within, in this thread alone.

    Other threads load other models meanwhile, or draw how long they wait before they connect again. So the
    state of torch's generators is compared around each operation that may draw. Those of Python and numpy are
    compared as a whole, which is ``doubtful`` where Python's is all that has moved: then do the same again
    with ``calls``, slower, by a profile function that sees the calls of this thread.
    """

    def __init__(self, device: torch.device, calls: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._drawn = False
        self._calls = calls and sys.getprofile() is None  # else somebody else's, which is left alone
        self._numpy, self._python = _state_of_numpy(), random.getstate()

    @property
    def any(self) -> bool:
        """Whether any of the generators has moved."""
        python = not self._calls and self._python != random.getstate()
        return python or self._drawn or self._numpy != _state_of_numpy()

    @property
    def doubtful(self) -> bool:
        """Whether another thread may have moved what has."""
        return not self._calls and self.any and not self._drawn and self._numpy == _state_of_numpy()

    def __enter__(self) -> Self:
        if self._calls:
            sys.setprofile(self._see_call)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if self._calls:
            sys.setprofile(None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or named.get("generator") is not None:
            return func(*args, **named)
        before = self._states()
        result = func(*args, **named)
        self._drawn = self._drawn or before != self._states()
        return result

    def _states(self) -> list[bytes]:
        states = [torch.get_rng_state().numpy().tobytes()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device).numpy().tobytes())
        return states

    def _see_call(self, frame: FrameType, event: str, function: Any) -> None:
        """All that draws, as `random.shuffle`, calls one of two methods of the generator."""
        if (
            event == "c_call"
            and function.__name__ in _DRAWING
            and getattr(function, "__self__", None) is _PYTHON
        ):
            self._drawn = True


#: Python's generator, that of the functions of `random`, and its methods that draw.
_PYTHON = random.random.__self__  # type: ignore[attr-defined]
_DRAWING = ("random", "getrandbits")


def _state_of_numpy() -> tuple[object, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return name, np.asarray(keys).tobytes(), tuple(rest)


@contextmanager
def seeded(device: torch.device) -> Iterator[None]:
    """Within, the generators of the process are at their same start; afterwards they are where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


_passes = threading.local()


@contextmanager
def _without_checkpointing() -> Iterator[None]:
    _install()
    before = getattr(_passes, "running", False)
    _passes.running = True
    try:
        yield
    finally:
        _passes.running = before


def _install() -> None:
    """Let the two kinds of `torch.utils.checkpoint` ask whether a pass of ours runs in their thread.

    torch has no switch for them. They are called by name out of any network, so only what they call
    themselves can be replaced; outside of our passes it is what it was.
    """
    reentrant: Any = checkpoint.CheckpointFunction
    if hasattr(reentrant, "_proxygrad_apply"):
        return
    own_apply, own_generator = reentrant.apply, checkpoint._checkpoint_without_reentrant_generator

    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        running = getattr(_passes, "running", False)
        return function(*args) if running else own_apply(function, preserve_rng_state, *args)

    def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
        running = getattr(_passes, "running", False)
        return iter((None,)) if running else own_generator(*args, **kwargs)

    reentrant._proxygrad_apply = own_apply
    reentrant.apply = apply
    checkpoint._checkpoint_without_reentrant_generator = generator
