"""A lane is stopped when its deadline passes, wherever it is; the deadline may move."""

from __future__ import annotations

import time

import pytest

from proxygrad.engine.engine import Engine
from proxygrad.errors import DeadlineExceeded
from tests.support.engine_requests import ENDLESS, ask, until
from tests.support.networks import small
from tests.support.slow_network import slow


def test_a_deadline_ends_a_running_lane_and_says_how_far_it_came() -> None:
    pause_s = 0.005
    network, _ = slow(pause_s)
    with Engine() as engine:
        begun = time.monotonic()
        ticket = engine.submit(network, ask(steps=ENDLESS), deadline_s=1.5)
        other = engine.submit(network, ask(seed=1))
        with pytest.raises(DeadlineExceeded) as raised:
            ticket.result(60)
        took_s = time.monotonic() - begun
        assert other.result(60).result.steps_done == 8
    error = raised.value
    assert 1.5 <= took_s < ENDLESS * pause_s
    assert 1 <= error.step <= 1.5 / pause_s
    limit = f"{error.limit_s:.3g} s from submission"
    assert str(error) == f"the deadline, {limit}, passed after step {error.step} of {ENDLESS}"
    assert (error.code, error.steps) == ("deadline_exceeded", ENDLESS)
    assert error.limit_s == pytest.approx(1.5, abs=0.5)


@pytest.mark.parametrize("deadline_s", [0.0, -5.0])
def test_a_deadline_that_has_passed_already_ends_it_before_its_first_step(deadline_s: float) -> None:
    network, pace = slow()
    before = pace.passes
    with (
        Engine() as engine,
        pytest.raises(DeadlineExceeded, match=r"passed before the first of 8 steps"),
    ):
        engine.submit(network, ask(), deadline_s=deadline_s).result(60)
    assert pace.passes == before


def test_a_deadline_passes_while_a_ticket_waits_for_a_lane() -> None:
    network, _ = slow(pause_s=0.002)
    with Engine(max_lanes=1) as engine:
        engine.submit(network, ask(steps=ENDLESS))
        waiting = engine.submit(network, ask(seed=1), deadline_s=0.1)
        with pytest.raises(DeadlineExceeded, match="before the first of 8 steps"):
            waiting.result(60)


def test_a_deadline_can_be_moved_and_taken_away() -> None:
    network, _ = slow(pause_s=0.03)
    with Engine() as engine:
        ticket = engine.submit(network, ask(steps=40), deadline_s=1.0)  # it takes 1.2 s
        ticket.extend_deadline(None)
        assert ticket.result(60).result.steps_done == 40
        shortened = engine.submit(network, ask(steps=ENDLESS), deadline_s=60)
        until(lambda: shortened.progress.step > 2)
        shortened.extend_deadline(0.05)
        with pytest.raises(DeadlineExceeded, match="after step"):
            shortened.result(60)


def test_a_deadline_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="deadline_s nan"), Engine() as engine:
        engine.submit(small(), ask(), deadline_s=float("nan"))
