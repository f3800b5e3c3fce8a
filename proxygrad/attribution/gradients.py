"""Attributions by gradients alone: saliency, gradient × input, guided backpropagation, integrated gradients.

They stand beside DeepLIFT for comparison. Each takes the objective as a function of the inputs,
``value(inputs (N, *S)) → (N,)``, whose entries depend on their own input only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from proxygrad.backward.gates import NOTED, note
from proxygrad.backward.surrogate import rectifier_name
from proxygrad.errors import InvalidRequest, near
from proxygrad.torch_function import TorchFunctionInterceptor

Value = Callable[[Tensor], Tensor]
GradientMethod = Literal["saliency", "gradient_input", "guided_backprop", "integrated_gradients"]

#: On the path of integrated gradients, unless said otherwise; the default of captum's.
POINTS = 50


class GradientAttribution(NamedTuple):
    """``contributions`` and ``multipliers``, each ``(N, *S)``, averaged over the references."""

    contributions: Tensor
    multipliers: Tensor


def gradient_attribution(
    method: GradientMethod, value: Value, inputs: Tensor, references: Tensor, points: int = POINTS
) -> GradientAttribution:
    """The attribution of ``value`` to ``inputs`` ``(N, *S)`` by one of the methods of this module.

    ``references``: ``(N, k, *S)``, as of `proxygrad.attribution.references`. Multipliers are the gradients.
    Contributions are ``multiplier × (input − reference)`` for ``gradient_input`` and
    ``integrated_gradients``. ``saliency`` and ``guided_backprop`` have no reference: contributions are
    ``|gradient|`` of the one, and the guided gradient of the other. ``points``: of the path of
    ``integrated_gradients``.

    Summation to delta holds for ``integrated_gradients`` alone, as far as ``points`` are enough. Raises
    `InvalidRequest` for an unknown method, or less than one point.
    """
    _check_method(method)
    if method == "saliency":
        found = gradient(value, inputs)
        return GradientAttribution(found.abs(), found)
    if method == "guided_backprop":
        found = guided_gradient(value, inputs)
        return GradientAttribution(found, found)
    if method == "gradient_input":
        found = gradient(value, inputs)
        return GradientAttribution(found * (inputs - references.mean(dim=1)), found)
    each = [
        (path := path_gradient(value, inputs, reference, points), path * (inputs - reference))
        for reference in references.unbind(dim=1)
    ]
    multipliers, contributions = (torch.stack(parts).mean(dim=0) for parts in zip(*each, strict=True))
    return GradientAttribution(contributions, multipliers)


def _check_method(method: str) -> None:
    valid = get_args(GradientMethod)
    if method not in valid:
        raise InvalidRequest(f"unknown method {method!r}; valid: {', '.join(near(method, valid) or valid)}")


def gradient(value: Value, inputs: Tensor) -> Tensor:
    """``∂ value / ∂ inputs``, ``(N, *S)``; its magnitude is saliency (Simonyan, Vedaldi and Zisserman, arXiv
    1312.6034, section 3). Raises `InvalidRequest` where the value does not depend on the inputs.
    """
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        values = value(leaf.clone())  # a network may write over its input
        if not values.requires_grad:
            raise InvalidRequest("the objective does not depend on the inputs through any gradient")
        (found,) = torch.autograd.grad(values.sum(), leaf, materialize_grads=True)
    return found


def guided_gradient(value: Value, inputs: Tensor) -> Tensor:
    """The gradient of guided backpropagation, ``(N, *S)`` (Springenberg et al., arXiv 1412.6806).

    At each ReLU it passes where the input was positive and so is the gradient. Calls are intercepted
    (`GuidedBackprop`), so functions, reused modules and in-place calls count like modules.
    """

    def guided(leaf: Tensor) -> Tensor:
        with GuidedBackprop():
            return value(leaf)

    return gradient(guided, inputs)


def path_gradient(value: Value, inputs: Tensor, reference: Tensor, points: int = POINTS) -> Tensor:
    """The mean gradient on the line from ``reference`` to ``inputs``, both ``(N, *S)``: the multipliers of
    integrated gradients (Sundararajan, Taly and Yan, arXiv 1703.01365, equation 3).

    Taken at the midpoints ``(i + ½) / points``, i = 0 … points − 1, as in the DeepLIFT authors' comparison.
    Raises `InvalidRequest` for less than one point.
    """
    if points < 1:
        raise InvalidRequest(f"points={points}: integrated gradients need at least one")
    total = torch.zeros_like(inputs)
    for i in range(points):
        total += gradient(value, reference + (inputs - reference) * ((i + 0.5) / points))
    return total / points


class GuidedBackprop(TorchFunctionInterceptor):
    """Context manager: gradients below zero stop at every activation that `surrogate` knows.

    For ReLU that is the published rule. Other activations keep their own derivative; what reaches them from
    above is cut at zero in the same way.
    """

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call itself; the gradient of an activation's result passes where it is positive."""
        activation = rectifier_name(func, args, kwargs) is not None
        result = func(*args, **kwargs)
        if func in NOTED:
            note(func, args, kwargs, result)
        if activation and isinstance(result, Tensor) and result.requires_grad:
            result.register_hook(_positive)
        return result


def _positive(gradient: Tensor) -> Tensor:
    return gradient.clamp(min=0)
