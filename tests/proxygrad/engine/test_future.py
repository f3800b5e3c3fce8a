"""What a caller can do while an image is made: look, wait, keep a checkpoint, stop it."""

from __future__ import annotations

import threading
import time

import pytest

from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.engine import Engine
from proxygrad.engine.future import RenderFuture
from proxygrad.engine.request import RenderRequest
from proxygrad.errors import CheckpointMismatch, RenderCanceled
from tests.support.engine_requests import ENDLESS, ask, until
from tests.support.networks import small
from tests.support.slow_network import slow


def test_the_time_that_remains_is_told_by_the_pace() -> None:
    network, _ = slow(pause_s=0.02)
    engine = Engine()
    ticket = engine.submit(network, ask(steps=80))
    assert ticket.remaining_s is None
    with engine:
        until(lambda: ticket.progress.step >= 10)
        at, remaining_s = time.monotonic(), ticket.remaining_s
        ticket.result(60)
        took_s = time.monotonic() - at
    assert remaining_s is not None
    assert took_s / 8 < remaining_s < 8 * took_s  # a loaded machine's pace is uneven
    assert ticket.remaining_s == 0.0


def test_a_ticket_that_waits_is_canceled_at_once_while_the_device_is_busy() -> None:
    network, pace = slow()
    with Engine(max_lanes=1) as engine:
        running = engine.submit(network, ask(steps=ENDLESS))
        until(lambda: running.progress.step > 0)
        waiting = engine.submit(network, ask(seed=1))
        pace.hold()
        try:
            waiting.cancel()
            with pytest.raises(RenderCanceled, match="before its first step"):
                waiting.result(0)
            running.cancel()
            assert not running.wait(0.05)
        finally:
            pace.going.set()
        with pytest.raises(RenderCanceled, match="after step"):
            running.result(60)


def test_a_checkpoint_goes_on_in_another_engine_with_the_same_bytes() -> None:
    network, pace = slow()
    spec = ask(steps=60, update="adam", robustness="standard", objective="neuron")
    with Engine() as engine:
        whole = engine.submit(network, spec).result(60)
        pace.pause_s = 0.03  # so that it is far from its end when the checkpoint is asked for
        ticket = engine.submit(network, spec)
        until(lambda: ticket.progress.step >= 20)
        taken = ticket.checkpoint()
        ticket.cancel()
    pace.pause_s = 0.0
    assert taken is not None
    assert 20 <= taken.step < 60
    with Engine() as engine:
        again = engine.submit(network, spec, checkpoint=taken.to_bytes())
        assert again.progress.step == taken.step
        rendering = again.result(60)
    assert rendering.png == whole.png
    assert rendering.result.curve == whole.result.curve
    assert rendering.result.start_activation == whole.result.start_activation
    assert rendering.result.ran_s > taken.ran_s > 0.02


def test_a_ticket_that_waits_gives_back_the_checkpoint_it_came_with() -> None:
    network, _ = slow()
    with Engine(max_lanes=1) as engine:
        running = engine.submit(network, ask(steps=ENDLESS))
        until(lambda: running.progress.step > 2)
        taken = running.checkpoint()
        assert taken is not None
        data = taken.to_bytes()
        resumed = engine.submit(network, ask(steps=ENDLESS), checkpoint=data)
        fresh = engine.submit(network, ask())
        kept = resumed.checkpoint(0)
        assert kept is not None
        assert kept.to_bytes() == data
        assert fresh.checkpoint(0) is None


def test_no_checkpoint_of_what_has_ended_or_of_a_device_that_hangs() -> None:
    network, pace = slow()
    with Engine() as engine:
        done = engine.submit(network, ask())
        done.result(60)
        assert done.checkpoint() is None
        hanging = engine.submit(network, ask(steps=ENDLESS))
        until(lambda: hanging.progress.step > 0)
        pace.hold()
        try:
            assert hanging.checkpoint(timeout_s=0.05) is None
        finally:
            pace.going.set()
        assert hanging.checkpoint() is not None


def test_whoever_waits_for_a_checkpoint_is_let_go_when_the_lane_ends() -> None:
    network, pace = slow()
    engine = Engine().start()
    ticket = engine.submit(network, ask(steps=ENDLESS))
    until(lambda: ticket.progress.step > 0)
    pace.hold()
    found = list[Checkpoint | None]()
    threads = [threading.Thread(target=lambda: found.append(ticket.checkpoint(30))) for _ in range(3)]
    ticket.cancel()
    for thread in threads:
        thread.start()
    until(lambda: ticket._request.wants_checkpoint)
    pace.going.set()
    engine.close()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert all(each is None or each.step > 0 for each in found)


def test_several_threads_may_ask_at_once() -> None:
    network, _ = slow(pause_s=0.005)
    with Engine() as engine:
        ticket = engine.submit(network, ask(steps=ENDLESS))
        until(lambda: ticket.progress.step > 0)
        found = list[Checkpoint | None]()
        threads = [threading.Thread(target=lambda: found.append(ticket.checkpoint())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [each is not None and each.step > 0 for each in found] == [True] * 4


def test_a_checkpoint_of_something_else_is_refused_at_once() -> None:
    network = small()
    with Engine() as engine:
        ticket = engine.submit(network, ask(steps=ENDLESS))
        until(lambda: ticket.progress.step > 0)
        taken = ticket.checkpoint()
        assert taken is not None
        with pytest.raises(CheckpointMismatch, match="seed 0; here it is 5"):
            engine.submit(network, ask(steps=ENDLESS, seed=5), checkpoint=taken.to_bytes())
        with pytest.raises(CheckpointMismatch, match="no checkpoint"):
            engine.submit(network, ask(), checkpoint=b"damaged")


def test_a_ticket_alone_needs_no_engine() -> None:
    ticket = RenderFuture(RenderRequest(small(), ask()))
    assert (ticket.wait(0), ticket.preview(), ticket.remaining_s, ticket.checkpoint()) == (
        False,
        None,
        None,
        None,
    )
