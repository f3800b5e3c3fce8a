"""The circuit opens with a timeout, and one call at a time finds out whether Redis is back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import TimeoutError as RedisTimeout

from service.backend.circuit_breaker import OPEN_S, PROBE_S, CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def state_of(breaker: CircuitBreaker) -> str:
    return breaker.state


def failing(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    """One whose last call timed out just now."""
    breaker = CircuitBreaker(clock)
    assert breaker.call(divmod, 7, 2) == (3, 1)
    assert state_of(breaker) == "closed"
    with pytest.raises(RedisTimeout, match="slow"):
        breaker.call(failing(RedisTimeout("slow")))
    return breaker


def test_open_it_fails_without_a_call(breaker: CircuitBreaker, clock: Clock) -> None:
    calls: list[int] = []
    clock.now_s += OPEN_S - 0.01
    assert state_of(breaker) == "open"
    with pytest.raises(RedisTimeout, match="open"):
        breaker.call(calls.append, 1)
    assert not calls


def test_a_probe_that_is_answered_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now_s += OPEN_S
    assert state_of(breaker) == "half_open"
    assert breaker.call(divmod, 7, 2) == (3, 1)
    assert state_of(breaker) == "closed"


def test_a_probe_that_times_out_opens_it_again(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now_s += OPEN_S
    with pytest.raises(RedisTimeout, match="slow"):
        breaker.call(failing(RedisTimeout("slow")))
    assert state_of(breaker) == "open"


@pytest.mark.parametrize("error", [RedisGone("refused"), ValueError("a reply that says no")])
def test_a_probe_that_fails_at_once_closes_it(
    breaker: CircuitBreaker, clock: Clock, error: Exception
) -> None:
    """Redis answered, or refused the connection: no thread waits for it."""
    clock.now_s += OPEN_S
    with pytest.raises(type(error)):
        breaker.call(failing(error))
    assert state_of(breaker) == "closed"


def test_others_are_refused_while_one_probes(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now_s += OPEN_S
    began, end = threading.Event(), threading.Event()

    def probe() -> None:
        began.set()
        assert end.wait(20)

    thread = threading.Thread(target=breaker.call, args=(probe,))
    thread.start()
    try:
        assert began.wait(20)
        assert state_of(breaker) == "half_open"
        with pytest.raises(RedisTimeout, match="open"):
            breaker.call(divmod, 7, 2)
        clock.now_s += PROBE_S  # the probe hangs: another one may try
        assert breaker.call(divmod, 7, 2) == (3, 1)
    finally:
        end.set()
        thread.join(20)
    assert state_of(breaker) == "closed"
