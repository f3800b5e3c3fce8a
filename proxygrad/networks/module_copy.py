"""Module copies: a private, frozen copy of a caller's module, which itself is never changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from proxygrad.errors import NetworkError
from proxygrad.networks.rebinding import Rebinding
from proxygrad.torch_function import TorchFunctionInterceptor


def private_copy(
    module: nn.Module, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """A copy of ``module`` on ``device`` to run and hook freely: evaluation mode, no gradients of parameters,
    in ``dtype``, float32 or float64.

    Taken out of `nn.DataParallel` and `torch.compile`, also inside, as those would not let hooks be seen.
    Other precisions become ``dtype``. Its own forward hooks come along (weight norm lives in them),
    backward hooks do not; activations that somebody's hooks have stored on it are copied without their
    history. Functions that hold on to the module, or to others that are not registered as its children, hold
    on to the copy (`proxygrad.networks.rebinding`): nothing ever runs the caller's own.

    Raises `NetworkError` when the module cannot be copied, is TorchScript, quantized or otherwise not
    floating-point, has weights that are not there yet (meta, lazy) or not finite, or has batch norms without
    running statistics.
    """
    if not isinstance(module, nn.Module):
        raise NetworkError(f"{module!r} is of type {type(module).__name__}, not a torch.nn.Module")
    module = _unwrapped(module)
    _check_kind(module)
    _check_presence(module)
    try:
        duplicate, unregistered = _copied(module, {})
    except Exception as error:
        raise NetworkError(f"cannot copy the module {type(module).__name__}: {error}") from error
    for each in unregistered:
        _check_kind(each)
        _check_presence(each)
    for each in (duplicate, *unregistered):
        _unwrap_children(each)
        _drop_backward_hooks(each)
        _freeze(each, dtype)
        each.to(device)
        if torch.device(device).type == "cuda":
            let_recurrent_layers_run_backward(each)
        _check_values(each)
    return duplicate


def sharing_copy(module: nn.Module) -> nn.Module:
    """A second copy of a `private_copy` that holds the very same parameters and buffers: only what is then
    put in their place takes memory."""
    tensors = [*module.parameters(), *module.buffers()]
    duplicate, _ = _copied(module, {id(each): each for each in tensors})
    return duplicate


def let_recurrent_layers_run_backward(module: nn.Module) -> None:
    """cuDNN has a backward pass of LSTM, GRU and RNN in training mode alone, which differs by its dropout."""
    for each in module.modules():
        if isinstance(each, nn.RNNBase):
            each.dropout, each.training = 0.0, True


def _copied(module: nn.Module, memo: dict[int, Any]) -> tuple[nn.Module, list[nn.Module]]:
    """A deep copy, and the outermost copied modules that are not registered in it, as those of a list."""
    for each in module.modules():  # functions of TorchScript cannot be copied, and hold no state
        memo.update(
            {id(own): own for own in vars(each).values() if isinstance(own, torch.jit.ScriptFunction)}
        )
    with _DetachedCopies():
        duplicate = copy.deepcopy(module, memo)
        Rebinding(memo).rebind(duplicate)
    found = {each for key, each in memo.items() if key != id(memo) and isinstance(each, nn.Module)}
    hidden = found.difference(duplicate.modules())
    inner = {child for each in hidden for child in each.modules() if child is not each}
    return duplicate, [each for each in hidden if each not in inner]


def _drop_backward_hooks(module: nn.Module) -> None:
    """They wrap what a module takes and returns, which hides what made it, and forbids to work in place."""
    for each in module.modules():
        each._backward_hooks.clear()
        each._backward_pre_hooks.clear()
        each._is_full_backward_hook = None


def _freeze(module: nn.Module, dtype: torch.dtype) -> None:
    """Evaluation mode, ``dtype`` or the complex numbers of it, no gradients of parameters."""
    try:
        module.eval()  # whatever a `train` of its own returns
    except Exception:  # or whatever it takes
        for each in module.modules():
            each.training = False
    module.requires_grad_(False)
    module.double() if dtype == torch.float64 else module.float()
    module._apply(lambda value: value.to(dtype.to_complex()) if value.is_complex() else value)


class _DetachedCopies(TorchFunctionInterceptor):
    """Context manager: `copy.deepcopy` also copies results of a computation, as plain values.

    torch refuses those. They sit on modules on which another tool's hooks have stored activations, and where
    weight norm keeps its product.
    """

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Copy a tensor that is no leaf without its history; anything else is as ever."""
        if func is not Tensor.__deepcopy__ or args[0].is_leaf:
            return func(*args, **kwargs)
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone()
        return memo[id(tensor)]


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `nn.DataParallel` and `torch.compile` wrappers."""
    inside: Any = None
    if isinstance(module, nn.DataParallel | DistributedDataParallel):
        inside = module.module
    elif type(module).__name__ == "OptimizedModule":  # its class is in torch._dynamo, seconds to import
        inside = getattr(module, "_orig_mod", None)
    return _unwrapped(inside) if isinstance(inside, nn.Module) else module


def _unwrap_children(module: nn.Module) -> None:
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child is not None:
                parent._modules[name] = _unwrapped(child)


def _check_kind(module: nn.Module) -> None:
    for name, child in module.named_modules():
        what = f"module {name!r}" if name else f"the module {type(child).__name__}"
        if isinstance(child, torch.jit.ScriptModule):
            raise NetworkError(
                f"{what} is TorchScript, whose layers and rectifiers cannot be reached; "
                "give the Python module that it was made from"
            )
        if ".quantized" in type(child).__module__:
            raise NetworkError(f"{what} is quantized; only floating-point networks have gradients")
        if isinstance(child, _BatchNorm) and child.running_mean is None:
            raise NetworkError(
                f"{what} is a batch norm without running statistics: "
                "what it returns for an image would depend on the others of its batch"
            )


def _check_presence(module: nn.Module) -> None:
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(value):
            raise NetworkError(
                f"{name!r} is not initialized yet: run the module on an image once, or load its weights"
            )
        if value.is_meta:
            raise NetworkError(f"{name!r} is on the meta device and has no values; load the weights")
    for name, parameter in module.named_parameters():
        if not (parameter.is_floating_point() or parameter.is_complex()):
            raise NetworkError(
                f"parameter {name!r} is {parameter.dtype}; only floating-point networks have gradients"
            )


def _check_values(module: nn.Module) -> None:
    """Weights must be finite numbers; buffers too, but for the minus infinity of attention masks."""
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise NetworkError(f"{name!r} holds values that are not finite")
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point() and not bool((buffer < torch.inf).all()):
            raise NetworkError(f"{name!r} holds values that are not finite")
