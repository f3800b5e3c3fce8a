"""The ascent again, in plain torch and one image at a time: an independent account of what must come out."""

from __future__ import annotations

import torch
from torch import Tensor

from proxygrad.images import start_image
from tests.corpus.case import Act, Case


def rule(slope: float) -> Act:
    """ReLU whose derivative below 0 is ``slope``."""

    def act(x: Tensor) -> Tensor:
        below = x.clamp(max=0)
        return torch.relu(x) + slope * (below - below.detach())

    return act


def slow_loop(case: Case, unit: int, slope: float, steps: int, size: float, seed: int) -> list[float]:
    """The value of the unit before each step, and after the last one."""
    module = (case.plainly or case.build)(rule(slope) if case.reached else case.act)
    module.eval()
    x, curve = start_image(case.shape, seed).unsqueeze(0), list[float]()
    for step in range(steps + 1):
        torch.manual_seed(0)  # for those that draw
        value = case.read(module(x.requires_grad_()), unit)
        value.backward()
        curve.append(float(value.detach()))
        assert x.grad is not None
        length = x.grad.square().mean().sqrt()
        x = (x + size * (1 - step / steps) * x.grad / (length or 1)).detach().clamp(0, 1)
    return curve
