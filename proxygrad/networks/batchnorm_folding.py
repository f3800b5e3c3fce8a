"""Batch-norm folding: merges a batch norm into the convolution or linear layer before it.

In evaluation mode a batch norm is ``y * scale + shift`` with constants per channel, which the weights of the
convolution or linear layer before it can take over: one pass over the feature map less, forward and backward.

Which pairs there are is not read off a traced graph, which not every network has, but off a forward pass that
is watched (`find_pairs`): the batch norm takes the very tensor that the layer returned, and no other call of
torch does. A `Fold` checks that again in every forward pass, and raises `FoldMismatch` where control flow
went another way. What the watch cannot see, e.g. a `torch.autograd.Function` that takes the tensor too, shows
in the values, which `proxygrad.networks.variants` compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from proxygrad.networks.capture import first_tensor, tensors_in
from proxygrad.torch_function import TorchFunctionInterceptor

_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Pair:
    """A foldable pair: the names of a convolution or linear layer and of the batch norm after it.

    ``hidden``: the layers whose value a folded network does not have: the first of the two, and every module
    around it that returns the same tensor.
    """

    linear: str
    norm: str
    hidden: frozenset[str]


def find_pairs(module: nn.Module, inputs: Tensor, names: Mapping[str, nn.Module]) -> tuple[Pair, ...]:
    """Run ``module`` on ``inputs`` and return what can be folded, among the modules in ``names``.

    Each of a pair is called once; a module with anybody's hooks, parametrization or own forward is left
    alone. No hook of ours is left behind, whatever happens. Raises what the module raises.
    """
    watch = _Watch({each: name for name, each in names.items()})
    with ExitStack() as stack:
        for each in watch.names:
            stack.callback(each.register_forward_pre_hook(watch.before).remove)
            stack.callback(each.register_forward_hook(watch.after).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(watch)
        output = module(inputs)
    returned = {id(tensor) for tensor in tensors_in(output)}
    return tuple(pair for product, pair in watch.pairs() if id(product) not in returned)


@dataclass
class _Product:
    """What a layer returned, and which calls took it. The tensor is held, so that its id stays unique."""

    tensor: Tensor
    linear: str
    hidden: set[str]
    norms: list[str] = field(default_factory=list)
    used_otherwise: bool = False


class _Watch(TorchFunctionInterceptor):
    """Follows the tensors that layers return through one forward pass."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self.names = names
        self._linear = {each for each in names if _as_torch_made_it(each, _LINEAR)}
        self._norms = {each for each in names if _as_torch_made_it(each, _NORMS)}
        self._products: dict[int, _Product] = {}
        self._calls: Counter[str] = Counter()
        self._running: str | None = None  # of the batch norms

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook: count the call, and note the product that a batch norm takes."""
        name = self.names[module]
        self._calls[name] += 1
        if module in self._norms and not module.training:
            self._running = name
            if product := self._product(first_tensor(inputs)):
                product.norms.append(name)

    def after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook: note what a layer returned, and under which names."""
        name = self.names[module]
        if name == self._running:
            self._running = None
        if product := self._product(first_tensor(output)):
            product.hidden.add(name)
        elif module in self._linear and (output.ndim == 2 or not isinstance(module, nn.Linear)):
            # A linear layer has its units last and a batch norm in dimension 1: the same in (B, units) only.
            self._products[id(output)] = _Product(output, name, {name})

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call, and note which products it took."""
        result = func(*args, **kwargs)
        if next(tensors_in(result), None) is not None:  # not a shape, a device, …
            for tensor in tensors_in((args, kwargs)):
                product = self._product(tensor)
                if product is not None and product.norms[:1] != [self._running]:
                    product.used_otherwise = True
        return result

    def _product(self, tensor: Tensor | None) -> _Product | None:
        return None if tensor is None else self._products.get(id(tensor))

    def pairs(self) -> Iterator[tuple[Tensor, Pair]]:
        """Pairs called once each, the second on what the first returned; each with that tensor."""
        for product in self._products.values():
            if product.used_otherwise or len(product.norms) != 1:
                continue
            (norm,) = product.norms
            if self._calls[product.linear] == self._calls[norm] == 1:
                yield product.tensor, Pair(product.linear, norm, frozenset(product.hidden))


def _as_torch_made_it(module: nn.Module, types: tuple[type[nn.Module], ...]) -> bool:
    """Exactly one of ``types``, weights and all, and nobody has hooked into it."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return (
        type(module) in types
        and "forward" not in vars(module)
        and set(module._parameters) == {"weight", "bias"}
        and not any(hooks)
    )


def folded_parameters(linear: nn.Module, norm: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias with which ``linear`` returns what ``norm`` would; computed in float64.

    ``y = (W x + b - mean) * s + shift`` with ``s = scale / sqrt(variance + eps)`` is ``W' x + b'`` with
    ``W' = s W`` and ``b' = (b - mean) * s + shift``.
    """
    weight = _double(linear.weight)
    assert weight is not None, "a layer without a weight is no layer"
    mean, variance = _double(norm.running_mean), _double(norm.running_var)
    assert mean is not None, "private_copy refuses batch norms without running statistics"
    assert variance is not None, "mean and variance come together"
    scale = torch.rsqrt(variance + float(norm.eps))  # type: ignore[arg-type]
    if (own := _double(norm.weight)) is not None:
        scale = scale * own
    bias, shift = _double(linear.bias), _double(norm.bias)
    moved = (0 if bias is None else bias) - mean
    moved = moved * scale + (0 if shift is None else shift)
    scaled = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return nn.Parameter(scaled.float(), requires_grad=False), nn.Parameter(moved.float(), requires_grad=False)


def _double(value: Any) -> Tensor | None:
    return value.detach().double() if isinstance(value, Tensor) else None


class FoldMismatch(BaseException):
    """A folded layer ran without its batch norm: the values of this pass are wrong.

    No `Exception`: a network that catches those must not go on with them.
    """


class Fold:
    """A folded pair in a variant of the network: ``linear`` has the folded weights, ``norm`` does nothing.

    Replaces the ``forward`` of both. A batch norm that is given anything else is computed as ever.
    """

    def __init__(self, linear: nn.Module, norm: nn.Module) -> None:
        self._run_linear: Callable[[Tensor], Tensor] = linear.forward
        self._run_norm: Callable[[Tensor], Tensor] = norm.forward
        self._due: Tensor | None = None  # returned by the layer, not yet taken by the batch norm
        linear.forward = self._linear_forward
        norm.forward = self._norm_forward

    @property
    def due(self) -> bool:
        """Whether the layer ran, and its batch norm has not yet."""
        return self._due is not None

    def reset(self) -> None:
        """Forget the tensor of a pass that has ended or failed."""
        self._due = None

    def _linear_forward(self, input: Tensor) -> Tensor:
        if self.due:
            raise FoldMismatch
        self._due = y = self._run_linear(input)
        return y

    def _norm_forward(self, input: Tensor) -> Tensor:
        if input is not self._due:
            return self._run_norm(input)
        self._due = None
        return input
