"""Where to compute, and in what number format."""

from __future__ import annotations

from typing import cast

import torch

from proxygrad.errors import NetworkError
from proxygrad.precision import Precision, chosen
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


def choose_precision(wanted: str, device: str) -> Precision:
    """``wanted``, as the engine takes it; raises `SettingsError` if ``device`` has no such arithmetic."""
    precision = cast(Precision, wanted)
    try:
        chosen(precision, torch.device(device), (1, 1))
    except NetworkError as error:
        raise SettingsError(f"PROXYGRAD_PRECISION: {error}") from error
    return precision
