"""The device: where to compute, in what number format, and how much memory models may take there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch

from proxygrad.errors import NetworkError
from proxygrad.precision import Precision, chosen
from workers.errors import SettingsError

_ROOT = Path("/")


def choose(setting: str) -> str:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names; raises `SettingsError` if absent."""
    if setting == "cpu":
        return setting
    if not torch.cuda.is_available():
        if setting == "auto":
            return "cpu"
        raise SettingsError(
            f"PROXYGRAD_DEVICE is {setting!r}, but torch finds no CUDA device; valid here: auto, cpu"
        )
    number = int(setting.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if number >= count:
        there = ", ".join(f"cuda:{index}" for index in range(count))
        raise SettingsError(f"PROXYGRAD_DEVICE is {setting!r}; valid here: auto, cpu, {there}")
    return f"cuda:{number}"


def choose_precision(setting: str, device: str) -> Precision:
    """``setting``, as the engine takes it; raises `SettingsError` if ``device`` has no such arithmetic."""
    precision = cast(Precision, setting)
    try:
        chosen(precision, torch.device(device), (1, 1))
    except NetworkError as error:
        raise SettingsError(f"PROXYGRAD_PRECISION: {error}") from error
    return precision


def memory_budget(model_memory_mb: int | None, device: str) -> int:
    """Bytes for the weights of loaded models on ``device``; the rest is for images and what they need.

    By default half of what is free when the worker starts.
    """
    return free_bytes(device) // 2 if model_memory_mb is None else model_memory_mb * 10**6


def free_bytes(device: str, root: Path = _ROOT) -> int:
    """Bytes that can still be had: of a GPU, or of memory, within the limits of this process's cgroups.

    ``root``: where ``proc`` and ``sys`` are. Without them (macOS), all memory there is.
    """
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    free = _available(root / "proc/meminfo")
    if free is None:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(0, min([free, *_within_cgroups(root)]))


def _available(meminfo: Path) -> int | None:
    """What the kernel could give without swapping."""
    return _fields(meminfo, unit=1024).get("MemAvailable:")


def _within_cgroups(root: Path) -> Iterator[int]:
    """What each limit above this process leaves. Files read once, which can be dropped, count as free."""
    for folder, limit, current, droppable in _cgroups(root):
        try:
            most = (folder / limit).read_text().strip()
            used = int((folder / current).read_text())
        except (OSError, ValueError):
            continue
        if most.isdecimal():  # "max" is none
            yield int(most) - used + _fields(folder / "memory.stat").get(droppable, 0)


def _cgroups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Folders of the cgroups this process is in, outwards, and what their files are called."""
    v2 = ("memory.max", "memory.current", "inactive_file")
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/path" of version 2, "9:memory:/path" of version 1
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (base / "memory", v1) if controllers else (base, v2)
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(top):
                break
            yield (folder, *names)


def _fields(file: Path, unit: int = 1) -> dict[str, int]:
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) * unit for words in lines if len(words) > 1 and words[1].isdecimal()}
