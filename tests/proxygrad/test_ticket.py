"""What a caller can do while an image is made: look, wait, move the deadline, keep a checkpoint, stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from proxygrad.checkpoint import Checkpoint
from proxygrad.engine import Engine
from proxygrad.errors import Cancelled, CheckpointMismatch, DeadlineExceeded
from proxygrad.images import decode_png
from proxygrad.network import Network
from proxygrad.spec import Spec
from proxygrad.ticket import PREVIEW_PX, Ticket
from tests.proxygrad.networks import Small, small

ENDLESS = 4096


class Pace:
    """How fast a network is: one for all copies of it."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self.passes = 0
        self.going, self.standing = threading.Event(), threading.Event()
        self.going.set()

    def hold(self) -> None:
        """Let the engine's thread stand still within the next forward pass; returns when it does."""
        self.standing.clear()
        self.going.clear()
        assert self.standing.wait(10)

    def run(self) -> None:
        """One forward pass."""
        self.passes += 1
        if not self.going.is_set():
            self.standing.set()
            self.going.wait(30)
        time.sleep(self.pause_s)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pace:
        return self


class Slow(Small):
    """As fast as its pace."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.pace = pace

    def forward(self, x: Tensor) -> Tensor:
        self.pace.run()
        return super().forward(x)


def slow(pause_s: float = 0.0) -> tuple[Network, Pace]:
    pace = Pace(pause_s)
    return Network(Slow(pace), (3, 16, 16), name="slow"), pace


def ask(**settings: object) -> Spec:
    return Spec.model_validate({"model": "small", "layer": "conv2", "unit": 1, "steps": 8, **settings})


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def test_a_deadline_ends_a_running_lane_and_says_how_far_it_came() -> None:
    network, _ = slow(pause_s=0.005)
    with Engine() as engine:
        begun = time.monotonic()
        ticket = engine.submit(network, ask(steps=ENDLESS), deadline_s=0.3)
        other = engine.submit(network, ask(seed=1))
        with pytest.raises(DeadlineExceeded) as raised:
            ticket.result(10)
        took_s = time.monotonic() - begun
        assert other.result(10).result.steps_done == 8
    error = raised.value
    assert 0.3 <= took_s < 5
    assert 1 <= error.step <= 60
    assert str(error) == f"the deadline, 0.3 s from submission, passed after step {error.step} of {ENDLESS}"
    assert (error.code, error.steps) == ("deadline_exceeded", ENDLESS)
    assert error.limit_s == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("deadline_s", [0.0, -5.0])
def test_a_deadline_that_has_passed_already_ends_it_before_its_first_step(deadline_s: float) -> None:
    network, pace = slow()
    before = pace.passes
    with (
        Engine() as engine,
        pytest.raises(DeadlineExceeded, match=r"passed before the first of 8 steps"),
    ):
        engine.submit(network, ask(), deadline_s=deadline_s).result(10)
    assert pace.passes == before


def test_a_deadline_passes_while_a_ticket_waits_for_a_lane() -> None:
    network, _ = slow(pause_s=0.002)
    with Engine(max_lanes=1) as engine:
        engine.submit(network, ask(steps=ENDLESS))
        waiting = engine.submit(network, ask(seed=1), deadline_s=0.1)
        with pytest.raises(DeadlineExceeded, match="before the first of 8 steps"):
            waiting.result(5)


def test_a_deadline_can_be_moved_and_taken_away() -> None:
    network, _ = slow(pause_s=0.002)
    with Engine() as engine:
        ticket = engine.submit(network, ask(steps=40), deadline_s=0.05)
        ticket.extend_deadline(None)
        assert ticket.result(10).result.steps_done == 40
        shortened = engine.submit(network, ask(steps=ENDLESS), deadline_s=60)
        until(lambda: shortened.progress.step > 2)
        shortened.extend_deadline(0.05)
        with pytest.raises(DeadlineExceeded, match="after step"):
            shortened.result(5)


def test_a_deadline_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="deadline_s nan"), Engine() as engine:
        engine.submit(small(), ask(), deadline_s=float("nan"))


def test_a_preview_is_a_small_picture_of_the_best_image_so_far() -> None:
    network, pace = slow()
    with Engine() as engine:
        pace.going.clear()  # not even begun
        ticket = engine.submit(network, ask(steps=ENDLESS, size_px=200))
        assert ticket.preview() is None
        pace.going.set()
        until(lambda: ticket.progress.step >= 1)
        first = ticket.preview()
        until(lambda: ticket.progress.step >= 20)
        later = ticket.preview()
        ticket.cancel()
    assert first is not None
    assert later is not None
    assert decode_png(later).shape == (3, PREVIEW_PX, PREVIEW_PX)
    assert first != later


@pytest.mark.parametrize("robustness", ["none", "standard"])
def test_the_last_preview_is_the_image_itself_where_that_is_small(robustness: str) -> None:
    with Engine() as engine:
        ticket = engine.submit(small(), ask(robustness=robustness))
        rendering = ticket.result(10)
    preview = ticket.preview()
    assert preview is not None
    assert torch.equal(decode_png(preview), decode_png(rendering.png))


def test_previews_keep_the_shape_of_images_that_are_not_square() -> None:
    network = Network(Small(), (3, 40, 320), name="wide")
    with Engine() as engine:
        ticket = engine.submit(network, ask(steps=2))
        ticket.result(10)
    preview = ticket.preview()
    assert preview is not None
    assert decode_png(preview).shape == (3, 16, 128)


def test_the_time_that_remains_is_told_by_the_pace() -> None:
    network, _ = slow(pause_s=0.02)
    with Engine() as engine:
        ticket = engine.submit(network, ask(steps=40))
        assert ticket.remaining_s is None
        until(lambda: ticket.progress.step >= 5)
        at, remaining_s = time.monotonic(), ticket.remaining_s
        ticket.result(10)
        took_s = time.monotonic() - at
    assert remaining_s is not None
    assert took_s / 4 < remaining_s < 4 * took_s  # a loaded machine's pace is uneven
    assert ticket.remaining_s == 0.0


def test_a_ticket_that_waits_is_cancelled_at_once_while_the_device_is_busy() -> None:
    network, pace = slow()
    with Engine(max_lanes=1) as engine:
        running = engine.submit(network, ask(steps=ENDLESS))
        until(lambda: running.progress.step > 0)
        waiting = engine.submit(network, ask(seed=1))
        pace.hold()
        try:
            waiting.cancel()
            with pytest.raises(Cancelled, match="before its first step"):
                waiting.result(0)
            running.cancel()
            assert not running.wait(0.05)
        finally:
            pace.going.set()
        with pytest.raises(Cancelled, match="after step"):
            running.result(5)


def test_a_checkpoint_goes_on_in_another_engine_with_the_same_bytes() -> None:
    network, _ = slow(pause_s=0.001)
    spec = ask(steps=60, update="adam", robustness="standard", objective="neuron", solo=True)
    with Engine() as engine:
        whole = engine.submit(network, spec).result(20)
        ticket = engine.submit(network, spec)
        until(lambda: ticket.progress.step >= 20)
        taken = ticket.checkpoint()
        ticket.cancel()
    assert taken is not None
    assert 20 <= taken.step < 60
    with Engine() as engine:
        again = engine.submit(network, spec, checkpoint=taken.to_bytes())
        assert again.progress.step == taken.step
        rendering = again.result(20)
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
        done.result(10)
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
    until(lambda: ticket._wished)
    pace.going.set()
    engine.close()
    for thread in threads:
        thread.join(5)
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
            thread.join(5)
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
    ticket = Ticket(small(), ask())
    assert (ticket.wait(0), ticket.preview(), ticket.remaining_s, ticket.checkpoint()) == (
        False,
        None,
        None,
        None,
    )
