"""Capacity: how many images fit on a device at once, from its free memory, halved when that was too many.

It decides how large the slices of a step are, and how many lanes a group takes in. Correctness does not
depend on it: lanes that do not fit in one evaluation are evaluated slice by slice within the same step.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Lanes stepped at once by default: enough to fill a CPU; a group on CUDA begins with them.
DEFAULT_MAX_LANES = 16
#: Part of the free memory that lanes may take; the rest is for workspaces that grow with the batch.
SHARE = 0.8
#: Lanes that a group on CUDA takes in, and all groups together; more would gain no speed, only wait.
MOST_LANES = 256
#: After so many slices without failure a halved limit is doubled: what others held may be free again.
CALM_SLICES = 256

_MESSAGES = ("can't allocate memory", "not enough memory: you tried to allocate", "ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on the CPU or on a device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def release(device: torch.device) -> None:
    """Free the memory of a failed evaluation, once no exception refers to it any more."""
    gc.collect()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


class Capacity:
    """How many lanes of one group fit on its device, learned from its evaluations.

    ``limit``: lanes in one evaluation, or None as long as none has failed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.limit: int | None = None
        self._calm = 0
        self._peaks: dict[int, int] = {}  # bytes that an evaluation of so many lanes took at its peak

    def halve(self, lanes: int) -> None:
        """Record that an evaluation of ``lanes`` > 1 did not fit."""
        self.limit, self._calm = max(1, lanes // 2), 0

    def passed(self, lanes: int) -> None:
        """Record that an evaluation of ``lanes`` fitted."""
        if self.limit is None or lanes < self.limit:
            return
        self._calm += 1
        if self._calm >= CALM_SLICES:
            self.limit, self._calm = 2 * self.limit, 0

    @contextmanager
    def watched(self, lanes: int) -> Iterator[None]:
        """Measure the memory that an evaluation of ``lanes`` takes inside, on CUDA and where it teaches
        anything: for the fewest and for the most lanes so far. Resets PyTorch's peak statistics there.
        """
        known = self._peaks and min(self._peaks) <= lanes <= max(self._peaks)
        if self.device.type != "cuda" or known:
            yield
            return
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        yield
        self.observe(lanes, torch.cuda.max_memory_allocated(self.device) - before)

    def observe(self, lanes: int, peak_bytes: int) -> None:
        """Record that an evaluation of ``lanes`` took ``peak_bytes`` more than before it."""
        self._peaks[lanes] = peak_bytes
        ends = {min(self._peaks), max(self._peaks)}
        self._peaks = {count: peak for count, peak in self._peaks.items() if count in ends}

    def fits(self, free_bytes: int) -> int | None:
        """How many lanes `SHARE` of ``free_bytes`` takes in one evaluation, at least 1; None before any was
        observed. Two observations separate the cost of a lane from what all share; one counts all as the
        lanes' own.
        """
        if not self._peaks:
            return None
        few, many = min(self._peaks), max(self._peaks)
        if few < many and self._peaks[many] > self._peaks[few]:
            each = (self._peaks[many] - self._peaks[few]) / (many - few)
            shared = max(0.0, self._peaks[few] - each * few)
        else:
            each, shared = max(1.0, self._peaks[many] / many), 0.0
        return max(1, int((SHARE * free_bytes - shared) / each))

    def lanes(self, before: int) -> int:
        """How many lanes a group should hold, of which ``before`` as long as nothing was observed.

        On CUDA by free memory, what PyTorch holds in reserve included, and never above `MOST_LANES`.
        """
        if self.device.type != "cuda":
            return before
        free, _ = torch.cuda.mem_get_info(self.device)
        reserve = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        fitting = self.fits(free + reserve)
        return before if fitting is None else min(MOST_LANES, self.limit or MOST_LANES, fitting)
