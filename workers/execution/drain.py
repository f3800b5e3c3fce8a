"""The end of a worker process: told once, it finishes what fits; told twice, it puts everything back.

What begins the end may be a signal, a shutdown command of RQ, or a fault of the process itself.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time

#: From the first word to the end. Kubernetes kills after 30 s (`terminationGracePeriodSeconds`), Docker after
#: 10 s (`stop_grace_period`, 30 s in this project's compose file).
GRACE_S = 25.0
#: Of the grace period, this part is for putting back what turned out not to fit, but no more than 5 s.
MARGIN = 0.2
MOST_MARGIN_S = 5.0
#: A run that has made too few steps to have a pace gets that long to show one.
UNKNOWN_S = 1.0
#: After the second word: one write to Redis for each job.
HURRY_S = 2.0

#: Exit status of a process that hung, or whose engine or device failed (`EX_SOFTWARE` of sysexits.h).
FAULT_STATUS = 70


def end_now(status: int) -> None:
    """End the process as it is: threads that hang cannot be waited for."""
    logging.shutdown()
    os._exit(status)


class Drain:
    """Whether the process is about to end, and when it has to be gone. Safe in a signal handler.

    ``begun`` is set from the first word on. ``fault`` says what is wrong with the process, where that is why.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.begun = threading.Event()
        self.fault: str | None = None
        self._grace_s = grace_s
        self._margin_s = min(MOST_MARGIN_S, MARGIN * grace_s)
        self._begun_s = math.inf
        self._until_s = math.inf
        self._hurried = False

    def begin(self, fault: str | None = None) -> None:
        """Take no more work; end within the grace period. Said twice it changes nothing."""
        if not self.begun.is_set():
            self._begun_s = time.monotonic()
            self._until_s = self._begun_s + self._grace_s
            self.fault = fault
            self.begun.set()

    def hurry(self) -> None:
        """Put everything back now."""
        self.begin()
        self._hurried = True
        self._until_s = min(self._until_s, time.monotonic() + HURRY_S)

    @property
    def hurried(self) -> bool:
        """Whether nothing is to be finished any more."""
        return self._hurried

    @property
    def left_s(self) -> float:
        """Seconds until the process has to be gone; infinite before `begin`."""
        return max(0.0, self._until_s - time.monotonic())

    @property
    def give_back_s(self) -> float:
        """Seconds until what still runs is put back; infinite before `begin`."""
        return max(0.0, self._until_s - self._margin_s - time.monotonic())

    def fits(self, remaining_s: float | None) -> bool:
        """Whether a run that needs so many more seconds (None: nobody knows yet) may finish."""
        if self._hurried or self.give_back_s <= 0:
            return False
        if remaining_s is None:
            return time.monotonic() - self._begun_s < UNKNOWN_S
        return remaining_s <= self.give_back_s
