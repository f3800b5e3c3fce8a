"""`Engine.call`: functions that run between the steps of the lanes, in the engine's thread."""

from __future__ import annotations

import threading
import time

import pytest

from proxygrad.engine.engine import Engine
from proxygrad.errors import RenderCanceled
from proxygrad.spec import Spec
from tests.support.engine_requests import ENDLESS, ask, until
from tests.support.networks import small
from tests.support.slow_network import slow


def test_a_call_runs_in_the_engine_s_thread_beside_lanes() -> None:
    network = small()
    spec = Spec(model="small", layer="conv2", unit=1, preset="max", steps=64)
    with Engine() as engine:
        future = engine.submit(network, spec.resolve(network.info))
        threads = {engine.call(threading.get_ident).result(60) for _ in range(3)}
        assert len(threads) == 1
        assert threading.get_ident() not in threads
        assert future.result(60).result.steps_done == 64


def test_its_error_is_the_caller_s_and_the_engine_goes_on() -> None:
    def fails() -> None:
        raise KeyError("unknown")

    with Engine() as engine:
        with pytest.raises(KeyError, match="unknown"):
            engine.call(fails).result(60)
        assert engine.call(lambda: 3).result(60) == 3


def test_a_canceled_call_never_runs_and_a_closed_engine_takes_none() -> None:
    held, begun, ran = threading.Event(), threading.Event(), list[str]()

    def hold() -> None:
        begun.set()
        held.wait(60)

    with Engine() as engine:
        first = engine.call(hold)
        assert begun.wait(60)
        second = engine.call(lambda: ran.append("second"))
        assert second.cancel()
        held.set()
        first.result(60)
        engine.call(lambda: None).result(60)
    assert ran == []
    with pytest.raises(RenderCanceled):
        engine.call(lambda: None)


def test_calls_and_lanes_share_the_time_evenly() -> None:
    """A long call is followed by many short steps, not by one."""
    network, pace = slow(pause_s=0.002)
    with Engine() as engine:
        lane = engine.submit(network, ask(steps=ENDLESS))
        until(lambda: lane.progress.step > 0)
        engine.call(lambda: time.sleep(0.3)).result(60)
        before = pace.passes
        assert engine.call(lambda: pace.passes).result(60) - before >= 5
        lane.cancel()
        assert engine.call(lambda: 3).result(60) == 3
