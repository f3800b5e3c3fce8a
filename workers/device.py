"""Where to compute."""

from __future__ import annotations

import torch

from workers.errors import SettingsError


def choose(wanted: str) -> str:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names; raises `SettingsError` if absent."""
    if wanted == "cpu":
        return wanted
    if not torch.cuda.is_available():
        if wanted == "auto":
            return "cpu"
        raise SettingsError(
            f"PROXYGRAD_DEVICE is {wanted!r}, but torch finds no CUDA device; valid here: auto, cpu"
        )
    number = int(wanted.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if number >= count:
        there = ", ".join(f"cuda:{index}" for index in range(count))
        raise SettingsError(f"PROXYGRAD_DEVICE is {wanted!r}; valid here: auto, cpu, {there}")
    return f"cuda:{number}"
