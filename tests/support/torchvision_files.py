"""Random weights of SqueezeNet 1.1 in torchvision's cache, as if they had been downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from proxygrad.models.builders import build

#: The name under which torchvision publishes IMAGENET1K_V1.
NAME = "squeezenet1_1-b8a52dc0.pth"
#: Its path in `TORCH_HOME`.
CACHED = f"hub/checkpoints/{NAME}"


def cached_weights(folder: Path, monkeypatch: pytest.MonkeyPatch, state: Any = None) -> Any:
    """Put ``state``, by default random weights, where torchvision looks first; returns it."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    if state is None:
        state = build("torchvision:squeezenet1_1").state_dict()
    (folder / CACHED).parent.mkdir(parents=True)
    torch.save(state, folder / CACHED)
    return state
