"""One visualization, asked for and followed with either kind of client."""

from __future__ import annotations

import asyncio
import io
import itertools
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from PIL import Image

from proxygrad.protocol import visualizations as answers
from service.client import (
    AsyncClient,
    Canceled,
    CannotSave,
    Client,
    Conflict,
    Failed,
    Invalid,
    NotFound,
    StateEvent,
    StillRunning,
)
from service.client._async import events
from tests.service.client.conftest import QUESTION
from tests.service.conftest import PNG, Player


def test_ask_follow_fetch(client: Any, player: Player) -> None:
    asked = client.visualize(**QUESTION, slope=0.0)
    assert (asked.state, asked.spec.slope, asked.answered_at_once) == ("queued", 0.0, False)
    seen: list[answers.Visualization] = []

    def show(answer: answers.Visualization) -> None:
        states = [one.state for one in seen]
        seen.append(answer)
        if answer.state not in states:
            {"queued": player.begin, "running": player.succeed}.get(answer.state, len)(answer.id)

    assert asked.wait(progress=show) is asked
    assert list(dict.fromkeys(one.state for one in seen)) == ["queued", "running", "succeeded"]
    assert (asked.result.achieved_activation, asked.ended, asked.problem) == (3.5, True, None)
    assert asked.image() == PNG
    assert asked.images() == [PNG]
    again = client.visualize(**QUESTION, slope=0.0)
    assert (again.id, again.answered_at_once, again.wait().state) == (asked.id, True, "succeeded")
    assert client.get(asked.id).result == asked.result


@pytest.mark.parametrize("progress", [True, False])
def test_waiting_ends_with_the_job(
    client: Any, player: Player, progress: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = client.visualize(**QUESTION)
    later = Timer(0.2, player.succeed, [asked.id])
    later.start()
    assert asked.wait(progress=progress, timeout_s=60).result.stuck is False
    later.join()
    assert ("digits layer3 7: 100%" in capsys.readouterr().err) is progress


@pytest.mark.parametrize("progress", [True, False])
def test_what_failed_raises_its_problem_and_can_be_tried_again(
    client: Any, player: Player, progress: bool
) -> None:
    asked = client.visualize(**QUESTION)
    player.fail(asked.id)
    with pytest.raises(Failed, match=r"failed: .* infinite at step 3 \[lane_failed\]") as failed:
        asked.wait(progress=progress)
    assert (failed.value.code, failed.value.state, failed.value.problem) == (
        *("lane_failed", "failed"),
        asked.problem,
    )
    assert asked.wait(check=False).state == "failed"
    with pytest.raises(Failed):
        asked.result  # noqa: B018
    assert asked.retry().state == "queued"
    with pytest.raises(LookupError, match="wait for its result"):
        asked.result  # noqa: B018
    assert asked.cancel().state == "canceled"
    with pytest.raises(Canceled):
        asked.wait(progress=progress)


def test_what_cannot_be_done_any_more_is_a_conflict(client: Any, player: Player) -> None:
    asked = client.visualize(**QUESTION)
    player.succeed(asked.id)
    for verb in (asked.cancel, asked.retry):
        with pytest.raises(Conflict, match="has ended") as refused:
            verb()
        assert refused.value.problem.state == "succeeded"
    assert asked.refresh().state == "succeeded"
    asked.delete()
    with pytest.raises(NotFound):
        asked.refresh()


@pytest.mark.parametrize("progress", [True, False])
def test_what_was_deleted_meanwhile_is_not_waited_for(client: Any, url: str, progress: bool) -> None:
    asked = client.visualize(**QUESTION)
    with Client(url, environ={}) as other:
        other.get(asked.id).delete()
    with pytest.raises(NotFound):
        asked.wait(progress=progress)


def test_a_wait_has_an_end(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SHORTEST_S", 0.1)
    asked = client.visualize(**QUESTION)
    for progress, timeout_s in itertools.product((True, False), (0.0, 0.3)):
        with pytest.raises(StillRunning, match="still queued") as late:
            asked.wait(progress, timeout_s=timeout_s)
        assert isinstance(late.value, TimeoutError)


def test_events_are_typed_and_in_order(client: Any, player: Player) -> None:
    asked = client.visualize(**QUESTION)
    told: list[StateEvent] = []
    for event in asked.events():
        if not told:
            player.begin(asked.id)
        elif event == StateEvent("running", None) and event not in told:
            player.succeed(asked.id)
        if event not in told:
            told.append(event)
    assert told == [StateEvent(state, None) for state in ("queued", "running", "succeeded")]
    assert asked.result.achieved_activation == 3.5
    assert [event.state for event in client.get(asked.id).events()] == ["succeeded"]


def test_events_may_be_left_before_their_end(client: Any) -> None:
    asked = client.visualize(**QUESTION)
    told = asked.events()
    assert next(told) == StateEvent("queued", None)
    told.close()
    assert asked.refresh().state == "queued"


@pytest.mark.filterwarnings("error")
def test_what_is_called_may_fail(client: Any, player: Player) -> None:
    asked = client.visualize(**QUESTION)

    def fail(answer: answers.Visualization) -> None:
        raise ValueError(answer.state)

    with pytest.raises(ValueError, match="queued"):
        asked.wait(fail)
    player.succeed(asked.id)
    assert asked.wait().image() == PNG


def test_a_wait_may_be_canceled(url: str, player: Player) -> None:
    async def impatient(progress: bool) -> None:
        async with AsyncClient(url, environ={}) as client:
            asked = await client.visualize(**QUESTION, seed=int(progress))
            for timeout_s in (0.05, 0.3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await asked.wait(progress)
            player.succeed(asked.id)
            assert (await asked.wait()).state == "succeeded"

    for progress in (True, False):
        asyncio.run(impatient(progress))


def test_many_are_waited_for_at_once(url: str, player: Player) -> None:
    async def all_of_them() -> list[str]:
        async with AsyncClient(url, environ={}) as client:
            asked = [await client.visualize(**QUESTION | {"unit": unit}) for unit in range(20)]
            for one in asked:
                player.succeed(one.id)
            await asyncio.gather(*(one.wait(progress=len_of) for one in asked))
            return [one.state for one in asked]

    def len_of(answer: answers.Visualization) -> None:
        pass

    assert asyncio.run(all_of_them()) == ["succeeded"] * 20


def test_a_picture_in_other_forms(client: Any, player: Player, tmp_path: Path) -> None:
    asked = client.visualize(**QUESTION)
    with pytest.raises(NotFound, match="image_not_ready") as early:
        asked.image()
    assert early.value.retry_after_s == 1
    player.succeed(asked.id)
    with Image.open(io.BytesIO(asked.image(format="webp"))) as picture:
        assert (picture.format, picture.size) == ("WEBP", (32, 32))
    assert asked.image(format="npy").startswith(b"\x93NUMPY")
    with pytest.raises(NotFound, match="no image 1"):
        asked.image(1)
    with pytest.raises(Invalid, match="width"):
        asked.image(width=5)
    for name, start in (("a.png", PNG), ("b/c.WEBP", b"RIFF"), ("d.npy", b"\x93NUMPY"), ("e", PNG)):
        assert asked.save(tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(CannotSave, match=r"\.png, \.webp or \.npy"):
        asked.save(tmp_path / "unit.jpg")
    with pytest.raises(CannotSave, match="cannot write"):
        asked.save(tmp_path / "a.png" / "unit.png")


def test_the_same_idempotency_key_is_the_same_request(client: Any, player: Player) -> None:
    asked = client.visualize(**QUESTION, idempotency_key="first")
    player.fail(asked.id)
    assert client.visualize(**QUESTION, idempotency_key="first").state == "failed"
    with pytest.raises(Conflict, match="first"):
        client.visualize(**QUESTION, seed=1, idempotency_key="first")
    assert client.visualize(**QUESTION).state == "queued"
