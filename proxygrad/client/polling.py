"""Waiting for a service: deadlines, long polls, and how long a stream of events is listened to."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Self

from proxygrad.client.retries import ApiCall

#: One long poll while no progress is shown; proxies commonly time out after 60 s.
WAIT_S = 30.0
#: One long poll while progress is shown, without events.
WATCH_S = 1.0

#: A stream silent for so long is dead: the service sends a comment every 15 s.
SILENCE_S = 40.0
#: The shortest time worth opening a stream for; less is spent in one long poll.
SHORTEST_S = 1.0
#: Before another stream is opened, less a random part.
RECONNECT_S = 0.5
#: Streams in a row without an event before long polls take over.
MAX_EMPTY_STREAMS = 2


@dataclass(frozen=True)
class Deadline:
    """The end of a wait, on the monotonic clock; infinite without a timeout."""

    at_s: float = math.inf

    @classmethod
    def after(cls, timeout_s: float | None) -> Self:
        """The deadline ``timeout_s`` seconds from now; None: never."""
        return cls() if timeout_s is None else cls(time.monotonic() + timeout_s)

    @property
    def left_s(self) -> float:
        """Seconds left; negative once passed."""
        return self.at_s - time.monotonic()

    @property
    def listen_s(self) -> float:
        """How long a stream may be silent: at most half of what is left, so that the deadline is kept."""
        return min(SILENCE_S, self.left_s / 2)


NEVER = Deadline()


def long_poll(path: str, wait_s: float, deadline: Deadline = NEVER, *, patient: bool = True) -> ApiCall:
    """Read the resource at ``path`` once it has ended, or after ``wait_s`` seconds, 60 at most."""
    wait_s = max(0.0, min(wait_s, deadline.left_s))
    params = {"wait": round(wait_s, 3)} if wait_s > 0 else {}
    return ApiCall("GET", path, params, wait_s=wait_s, within_s=deadline.left_s, patient=patient)
