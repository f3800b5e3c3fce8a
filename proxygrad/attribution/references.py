"""References: what inputs are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest

ReferenceName = Literal["zeros"]
ReferenceLike = ReferenceName | float | Tensor | Callable[[Tensor], Tensor]


def references(reference: Any, inputs: Tensor, count: int, seed: int) -> Tensor:
    """``(N, k, *S)``, the references of each input ``(N, *S)``.

    ``reference``: "zeros"; a number; a tensor ``(*S)`` for all, ``(N, *S)`` with one for each, or
    ``(N, k, *S)``; or a function from inputs to any of these. Raises `InvalidRequest` for another shape.
    """
    if isinstance(reference, str) and reference == "zeros":
        reference = 0.0
    if callable(reference) and not isinstance(reference, Tensor):
        reference = reference(inputs)
    if isinstance(reference, int | float):
        return torch.full_like(inputs, reference).unsqueeze(1)
    if not isinstance(reference, Tensor):
        raise InvalidRequest(f"reference {reference!r}; valid: 'zeros', a number, a tensor or a function")
    shape = tuple(inputs.shape)
    given = reference.detach().to(inputs)
    if given.shape == shape[1:]:
        return given.expand(shape).unsqueeze(1)
    if given.shape == shape:
        return given.unsqueeze(1)
    if given.ndim == inputs.ndim + 1 and (given.shape[0], *given.shape[2:]) == shape:
        return given
    raise InvalidRequest(
        f"reference has shape {tuple(given.shape)}; valid for inputs of shape {shape}: {shape[1:]}, {shape} "
        f"or ({shape[0]}, k, {', '.join(map(str, shape[1:]))})"
    )
