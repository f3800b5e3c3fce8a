"""Functions of one tensor as networks, to attribute random mixtures of what they return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.result import Attribution


class Function(nn.Module):
    """A function of a tensor, with modules of its own where it needs some."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, **dict(self.named_children()))


def mixture(activations: Any) -> Tensor:
    """A fixed mixture of all numbers of the output, with weights of both signs."""
    output = activations["output"]
    output = output.reshape(len(output), -1)
    weights = torch.linspace(-1, 1.5, output.shape[1], dtype=output.dtype).cos() + 0.3
    result: Tensor = (output * weights).sum(1)
    return result


def attributed(function: Callable[..., Any] | nn.Module, x: Tensor, x0: Any, **options: Any) -> Attribution:
    """Contributions to the mixture, in the precision of ``x``; ``strict`` unless it is said."""
    module = function if isinstance(function, nn.Module) else Function(function)
    options = {"strict": True, "dtype": x.dtype, "reference": x0, **options}
    return attribute(module, x, mixture, **options)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Random normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
