"""A circuit breaker around Redis: after a timeout, calls fail at once until Redis answers again.

::

    closed ──► open          a call timed out
    open ──► half_open       after `OPEN_S`: the next call probes Redis, all others still fail at once
    half_open ──► closed     the probe was answered
    half_open ──► open       the probe timed out

A frozen Redis costs each caller one timeout at most, instead of a place in a growing line of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar, TypeVarTuple, get_args

from redis.exceptions import TimeoutError as RedisTimeout

State = Literal["closed", "open", "half_open"]
STATES: tuple[State, ...] = get_args(State)

#: How long the circuit stays open after a timeout.
OPEN_S = 1.0
#: How long one probe keeps others from probing.
PROBE_S = 5.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class CircuitBreaker:
    """The circuit of one process. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._retry_at_s: float | None = None  # None: closed
        self._probing = False

    @property
    def state(self) -> State:
        """The state now."""
        retry_at_s = self._retry_at_s
        if retry_at_s is None:
            return "closed"
        return "half_open" if self._probing or self._clock() >= retry_at_s else "open"

    def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call a blocking function of Redis. Raises what it raises, and redis' `TimeoutError` when open."""
        probe = self._retry_at_s is not None and self._begin_probe()
        try:
            outcome = function(*args)
        except RedisTimeout:
            self._retry_at_s, self._probing = self._clock() + OPEN_S, False
            raise
        except BaseException:
            if probe:  # Redis answered, or refused the connection at once: no thread waits for it
                self._close()
            raise
        if self._retry_at_s is not None:
            self._close()
        return outcome

    def _begin_probe(self) -> bool:
        now_s = self._clock()
        if self._retry_at_s is not None and now_s < self._retry_at_s:
            raise RedisTimeout("the circuit is open: Redis let a call time out a moment ago")
        self._retry_at_s, self._probing = now_s + PROBE_S, True
        return True

    def _close(self) -> None:
        self._retry_at_s, self._probing = None, False
