"""How much memory models may take: what the operator says, or half of what is free when the worker starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

_ROOT = Path("/")


def budget(model_memory_mb: int | None, device: str) -> int:
    """Bytes for the weights of loaded models on ``device``; the rest is for images and what they need."""
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
