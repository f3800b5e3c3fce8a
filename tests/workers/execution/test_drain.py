"""What fits into the grace period is finished; nothing is begun."""

from __future__ import annotations

import math
import time

import pytest

from workers.execution import drain as module
from workers.execution.drain import Drain


def test_before_it_has_begun_nothing_ends() -> None:
    drain = Drain(10.0)
    assert not drain.begun.is_set()
    assert drain.left_s == drain.give_back_s == math.inf
    assert drain.fits(1e9)


def test_what_fits_may_finish_and_a_part_of_the_time_is_kept_for_the_rest() -> None:
    drain = Drain(10.0)
    drain.begin()
    assert drain.left_s == pytest.approx(10.0, abs=0.2)
    assert drain.fits(7.5)
    assert not drain.fits(8.5)


def test_what_is_kept_for_putting_back_is_bounded() -> None:
    drain = Drain(1000.0)
    drain.begin()
    assert drain.left_s - drain.give_back_s == pytest.approx(module.MOST_MARGIN_S, abs=0.1)


def test_a_run_without_a_pace_gets_a_moment_to_show_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNKNOWN_S", 0.1)
    drain = Drain(10.0)
    drain.begin()
    assert drain.fits(None)
    time.sleep(0.15)
    assert not drain.fits(None)
    assert drain.fits(1.0)


def test_a_second_word_gives_up_everything() -> None:
    drain = Drain(10.0)
    drain.begin()
    drain.hurry()
    assert drain.hurried
    assert not drain.fits(0.0)
    assert drain.left_s <= module.HURRY_S


def test_the_first_fault_is_the_one_that_counts() -> None:
    drain = Drain(10.0)
    drain.begin("the engine has ended")
    drain.begin("another")
    drain.begin()
    assert drain.fault == "the engine has ended"


def test_no_grace_at_all() -> None:
    drain = Drain(0.0)
    drain.begin()
    assert not drain.fits(None)
    assert drain.left_s == 0.0
