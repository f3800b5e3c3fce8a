"""Signals: SIGTERM, SIGINT and SIGHUP begin the drain of a worker process."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from workers.execution.drain import Drain, end_now


def drain_on_signals(drain: Drain) -> None:
    """SIGTERM, SIGINT and SIGHUP begin the drain; SIGTERM or SIGINT then hurries it, and one more ends the
    process. The exit status after that is 128 and its number, as shells say it.

    SIGHUP comes when a terminal closes, once or twice, and from systemd right after SIGTERM (`SendSIGHUP`),
    so it hurries nobody; under ``nohup`` it goes on being ignored. Only the main thread may call this.
    """
    # Python runs a handler in the main thread, once that comes round to it: a signal that arrives just before
    # it sleeps on a lock, or that the kernel gives to another thread, would wait for as long as it sleeps.
    # The number is written to this pipe at once.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def next_signal() -> int:
        return os.read(reading, 1)[0]

    def next_order() -> int:
        while (number := next_signal()) == signal.SIGHUP:
            pass
        return number

    def follow() -> None:
        next_signal()
        drain.begin()
        next_order()
        drain.hurry()
        end_now(128 + next_order())

    threading.Thread(target=follow, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handled)


def _handled(number: int, frame: FrameType | None) -> None:
    """Nothing: but where Python does not handle a signal, nothing is written to the pipe."""
