"""Signals: SIGTERM and SIGINT begin the drain of a worker process."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from workers.execution.drain import Drain, end_now


def drain_on_signals(drain: Drain) -> None:
    """SIGTERM and SIGINT begin the drain, a second one hurries it, a third ends the process.

    Only the main thread may call this. The exit status after a third is 128 and its number, as shells say it.
    """
    # Python runs a handler in the main thread, once that comes round to it: a signal that arrives just before
    # it sleeps on a lock, or that the kernel gives to another thread, would wait for as long as it sleeps.
    # The number is written to this pipe at once.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def next_signal() -> int:
        return os.read(reading, 1)[0]

    def follow() -> None:
        next_signal()
        drain.begin()
        next_signal()
        drain.hurry()
        end_now(128 + next_signal())

    threading.Thread(target=follow, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handled)


def _handled(number: int, frame: FrameType | None) -> None:
    """Nothing: but where Python does not handle a signal, nothing is written to the pipe."""
