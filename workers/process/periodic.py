"""A thread that does one thing again and again, and survives what goes wrong with it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class PeriodicThread(threading.Thread):
    """Calls ``action`` at once and then every ``interval_s`` until ``stopping`` is set.

    An action that fails is logged and called again in its turn; the same failure is logged once.
    """

    def __init__(
        self, name: str, action: Callable[[], object], interval_s: float, stopping: threading.Event
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._action = action
        self._interval_s = interval_s
        self._stopping = stopping
        self._trouble = ""

    def run(self) -> None:
        """Call the action in its interval until stopped."""
        next_s = time.monotonic()
        while not self._stopping.wait(max(0.0, next_s - time.monotonic())):
            next_s = max(next_s + self._interval_s, time.monotonic())
            self._once()

    def _once(self) -> None:
        try:
            self._action()
        except Exception as error:
            if str(error) != self._trouble:
                _log.warning("%s: %s", self.name, error)
            self._trouble = str(error)
        else:
            self._trouble = ""
