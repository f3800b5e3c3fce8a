"""Streams of events: cut off, gone on with, held back by a proxy."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from proxygrad.client import PreviewEvent, ProgressEvent, StateEvent, polling
from proxygrad.client.sse import Frame
from tests.proxygrad.client.conftest import QUESTION, Connect
from tests.service.conftest import Player
from tests.support.flaky_server import Flaky, Mood, busy, cut, dropped, passed

STATES = ["queued", "running", "succeeded"]


def test_each_kind_of_frame_has_its_event() -> None:
    problem = {"code": "lane_failed", "detail": "infinite"}
    state = Frame("state", json.dumps({"state": "failed", "problem": problem})).event()
    assert isinstance(state, StateEvent)
    assert state.problem is not None
    assert (state.final, state.problem.code) == (True, "lane_failed")
    progress = Frame("progress", '{"step": 3, "steps": 8, "activation": null}').event()
    assert progress == ProgressEvent(step=3, steps=8, activation=None)
    data = base64.b64encode(b"PNG").decode()
    preview = Frame("preview", json.dumps({"step": 3, "media_type": "image/png", "data": data})).event()
    assert isinstance(preview, PreviewEvent)
    assert (preview.step, preview.media_type, preview.data) == (3, "image/png", b"PNG")
    assert Frame("newer", "x").event() is None


def played(asked: Any, player: Player) -> tuple[list[str], Callable[[Any], None]]:
    """The states as they come; what is called with each event plays the worker's next turn."""
    states: list[str] = []

    def play(event: Any) -> None:
        if isinstance(event, StateEvent) and event.state not in states:
            states.append(event.state)
            {"queued": player.begin, "running": player.succeed}.get(event.state, len)(asked.id)

    return states, play


@pytest.mark.parametrize("frames", [0, 1])
def test_a_stream_that_breaks_off_is_gone_on_with(
    shaky: Flaky, connect: Connect, player: Player, frames: int
) -> None:
    asked = connect(shaky.url).visualize(**QUESTION)
    shaky.of_streams = cut(1 + frames)
    states, play = played(asked, player)
    for event in asked.events():
        play(event)
    assert states == STATES
    assert asked.result.achieved_activation == 3.5
    streams = [each.headers.get("last-event-id") for each in shaky.seen if each.path.endswith("/events")]
    assert streams[0] is None
    assert all(streams[1:])
    assert "9999-" not in streams


def nothing(handler: Any, body: bytes) -> None:
    """A stream that ends before it says anything."""
    handler.snapshot(200, {"Content-Type": "text/event-stream"}, b"retry: 2000\n\n")


@pytest.mark.parametrize(
    "mood", [busy(404), dropped, nothing, busy(200, b"{}", Content_Type="application/json")]
)
def test_where_streams_cannot_be_had_polls_tell(
    shaky: Flaky, connect: Connect, player: Player, mood: Mood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "WATCH_S", 0.05)
    asked = connect(shaky.url).visualize(**QUESTION)
    shaky.of_streams = mood
    states, play = played(asked, player)
    assert asked.wait(progress=lambda answer: play(StateEvent(state=answer.state, problem=None))) is asked
    assert states == STATES
    assert 1 <= sum(each.path.endswith("/events") for each in shaky.seen) <= 2


def test_a_stream_is_taken_up_again_after_the_service_was_away(
    shaky: Flaky, connect: Connect, player: Player
) -> None:
    asked = connect(shaky.url).visualize(**QUESTION)
    streams = iter([cut(1), dropped])

    def stream(handler: Any, body: bytes) -> None:
        next(streams, passed)(handler, body)

    shaky.of_streams = stream
    states, play = played(asked, player)
    for event in asked.events():
        if not states:
            shaky.moods.extend([busy(502), dropped])
        play(event)
    assert states == STATES
