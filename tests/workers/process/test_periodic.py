"""A round goes on, whatever happens in it, until it is told to stop."""

from __future__ import annotations

import threading

import pytest

from workers.process.periodic import PeriodicThread


def test_it_calls_at_once_and_again_until_it_is_stopped() -> None:
    stopping, calls = threading.Event(), threading.Semaphore(0)
    rounds = PeriodicThread("count", calls.release, 0.01, stopping)
    rounds.start()
    for _ in range(3):
        assert calls.acquire(timeout=30)
    stopping.set()
    rounds.join(30)
    assert not rounds.is_alive()


def test_a_failure_is_logged_once_and_the_round_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    stopping, calls = threading.Event(), threading.Semaphore(0)

    def fail() -> None:
        calls.release()
        raise OSError("no route to host")

    rounds = PeriodicThread("janitor", fail, 0.01, stopping)
    rounds.start()
    for _ in range(3):
        assert calls.acquire(timeout=30)
    stopping.set()
    rounds.join(30)
    assert [record.message for record in caplog.records] == ["janitor: no route to host"]
