"""Methods that go by gradients: saliency, gradient × input, guided backpropagation, integrated gradients.

They stand beside DeepLIFT for comparison. Each takes the objective ``(R, *S) → (R,)``, whose entries depend
on their own input only, and pairs of inputs and references ``(R, *S)``, and returns contributions and
multipliers ``(R, *S)``. Summation to delta holds for the mean of integrated gradients over enough points of
the path between the two, and for no other method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from proxygrad.backward.gates import NOTED, note
from proxygrad.backward.surrogate import rectifier_name
from proxygrad.errors import InvalidRequest
from proxygrad.torch_function import TorchFunctionInterceptor

Value = Callable[[Tensor], Tensor]
#: From the objective, inputs, references and where on the path each row is, ``(R,)`` from 0 at the reference
#: to 1, to contributions and multipliers.
Method = Callable[[Value, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

#: On the path of integrated gradients, unless said otherwise; the default of captum's.
POINTS = 50


def saliency(value: Value, inputs: Tensor, references: Tensor, path: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient's magnitude (Simonyan, Vedaldi and Zisserman, arXiv 1312.6034): no reference."""
    found = gradient(value, inputs)
    return found.abs(), found


def guided_backprop(value: Value, inputs: Tensor, references: Tensor, path: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of guided backpropagation (Springenberg et al., arXiv 1412.6806): no reference.

    At each ReLU it passes where the input was positive and so is the gradient. Calls are intercepted
    (`GuidedBackprop`), so functions, reused modules and in-place calls count like modules.
    """

    def guided(x: Tensor) -> Tensor:
        with GuidedBackprop():
            return value(x)

    found = gradient(guided, inputs)
    return found, found


def gradient_times_input(
    value: Value, inputs: Tensor, references: Tensor, path: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient at the input, times the difference from the reference."""
    found = gradient(value, inputs)
    return found * (inputs - references), found


def integrated_gradients(
    value: Value, inputs: Tensor, references: Tensor, path: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient at one point of the line from the reference to the input, times their difference.

    Integrated gradients are the mean over points (Sundararajan, Taly and Yan, arXiv 1703.01365, equation 3):
    here the midpoints ``(i + ½) / points``, i = 0 … points − 1, as in the DeepLIFT authors' comparison.
    """
    difference = inputs - references
    found = gradient(value, references + difference * path.view(-1, *[1] * (inputs.ndim - 1)))
    return found * difference, found


METHODS: dict[str, Method] = {
    "gradient_times_input": gradient_times_input,
    "guided_backprop": guided_backprop,
    "integrated_gradients": integrated_gradients,
    "saliency": saliency,
}


def gradient(value: Value, inputs: Tensor) -> Tensor:
    """``∂ value / ∂ inputs``, ``(R, *S)``. Raises `InvalidRequest` where there is none."""
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        values = value(leaf.clone())  # a network may write over its input
        if not values.requires_grad:
            raise InvalidRequest("the objective does not depend on the inputs through any gradient")
        (found,) = torch.autograd.grad(values.sum(), leaf, materialize_grads=True)
    return found


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
