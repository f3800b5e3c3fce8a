"""Methods that go by the gradient alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: From the objective ``(R, *S) → (R,)``, differentiable, inputs and references ``(R, *S)``, to contributions
#: and multipliers ``(R, *S)``.
Method = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]


def gradient_times_input(
    objective: Callable[[Tensor], Tensor], inputs: Tensor, references: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient at the input, times the difference from the reference."""
    x = inputs.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(x).sum(), x)
    return gradient * (inputs - references), gradient


METHODS: dict[str, Method] = {"gradient_times_input": gradient_times_input}
