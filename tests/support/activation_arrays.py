"""Activations of a feature map, of tokens and of a vector, whose values can be indexed by hand."""

from __future__ import annotations

import torch

MAP = torch.arange(2 * 3 * 4 * 5, dtype=torch.float64).view(2, 3, 4, 5)
TOKENS = torch.arange(2 * 4 * 3, dtype=torch.float64).view(2, 4, 3) - 7
VECTOR = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
READ = {"map": MAP, "tokens": TOKENS, "vector": VECTOR}
SHAPES = {name: tuple(value.shape[1:]) for name, value in READ.items()}
