"""Both kinds of client against a gateway behind a real server."""

from __future__ import annotations

import asyncio
import inspect
import io
import itertools
from pathlib import Path
from threading import Timer
from typing import Any, assert_type

import pytest
import redis as redis_client
from fastapi import FastAPI
from PIL import Image

from service import answers, auth
from service.client import (
    AsyncClient,
    Cancelled,
    CannotSave,
    Client,
    Conflict,
    Failed,
    Invalid,
    NotFound,
    PreviewEvent,
    ProgressEvent,
    ServiceError,
    StateEvent,
    StillRunning,
    Unauthorized,
    Visualization,
    asynchronous,
    blocking,
    catalogue,
    events,
)
from service.keys import Keys
from tests.service.client.conftest import Connect
from tests.service.conftest import PNG, Player
from tests.service.serving import serving

QUESTION: dict[str, Any] = {"model": "digits", "layer": "layer3", "unit": 7}


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
    assert asked.cancel().state == "cancelled"
    with pytest.raises(Cancelled):
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


def test_a_wait_may_be_cancelled(url: str, player: Player) -> None:
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


def test_models_and_layers(client: Any) -> None:
    assert {model.name: model.ready for model in client.models()} == {"broken": False, "digits": True}
    assert client.model("digits").layer_count == 3
    assert [layer.units for layer in client.layers("digits")] == [32, 64, 10]
    assert client.layer("digits", "fc").objectives == ("logit", "neuron")
    with pytest.raises(NotFound, match="layer3"):
        client.layer("digits", "layer 3")


def test_lists_go_through_all_pages(client: Any, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "PAGE", 2)
    ids = [client.visualize(**QUESTION | {"unit": unit}).id for unit in range(5)]
    player.succeed(ids[1])
    assert [one.id for one in client.visualizations()] == ids[::-1]
    assert [one.id for one in client.visualizations(model="digits", state="succeeded")] == [ids[1]]
    assert len([*client.visualizations(state=["queued", "running"], layer=["layer3", "fc"])]) == 4
    assert [*client.visualizations(layer="layer2")] == []


def test_what_is_refused_says_what_would_be_valid(client: Any) -> None:
    with pytest.raises(NotFound, match="near names: digits") as refused:
        client.visualize(**QUESTION | {"model": "digit"})
    assert (refused.value.code, refused.value.status) == ("unknown_model", 404)
    with pytest.raises(Invalid, match="0 to 63") as invalid:
        client.visualize(**QUESTION | {"unit": 64})
    assert invalid.value.problem.errors[0].maximum == 63
    with pytest.raises(Invalid, match="slop"):
        client.visualize(**QUESTION, slop=0.1)


def test_the_same_idempotency_key_is_the_same_request(client: Any, player: Player) -> None:
    asked = client.visualize(**QUESTION, idempotency_key="first")
    player.fail(asked.id)
    assert client.visualize(**QUESTION, idempotency_key="first").state == "failed"
    with pytest.raises(Conflict, match="first"):
        client.visualize(**QUESTION, seed=1, idempotency_key="first")
    assert client.visualize(**QUESTION).state == "queued"


def test_with_a_key(
    url: str, connect: Connect, redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "LOOK_AGAIN_S", 0.0)
    _, key = Keys(redis).create("of a test")
    for wrong in (None, key[:-8] + "0" * 8):
        with pytest.raises(Unauthorized) as refused:
            connect(url, wrong).models()
        assert key[:-8] not in f"{refused.value} {refused.value.problem}"
    ours = connect(url, key)
    asked = ours.visualize(**QUESTION)
    assert [one.id for one in ours.visualizations()] == [asked.id]
    assert connect(url, environ={"PROXYGRAD_API_KEY": key}).get(asked.id).state == "queued"
    assert key not in repr(ours) + repr(asked) + str(ours.base_url)


def test_another_service_is_recognised_as_another(connect: Connect) -> None:
    other = FastAPI()

    @other.get("/v1/models")
    def models() -> str:
        return "hello"

    with serving(other) as url:
        client = connect(url)
        with pytest.raises(ServiceError, match="does not answer as"):
            client.models()
        with pytest.raises(ServiceError, match="404"):
            client.get("0" * 32)


def test_blocking_inside_an_event_loop(url: str) -> None:
    async def notebook() -> int:
        with Client(url, environ={}) as client:
            return len(client.models())

    assert asyncio.run(notebook()) == 2


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


@pytest.mark.parametrize("name", ["Client", "Visualization", "Batch"])
def test_both_kinds_offer_the_same(name: str) -> None:
    one, other = getattr(blocking, name), getattr(asynchronous, f"Async{name}")
    names = {each for each in dir(one) if not each.startswith("_")}
    assert names == {each for each in dir(other) if not each.startswith("_")}
    for each in names:
        if inspect.isfunction(getattr(one, each)):
            ours, theirs = inspect.signature(getattr(one, each)), inspect.signature(getattr(other, each))
            assert list(ours.parameters.values()) == list(theirs.parameters.values()), each


def typed(client: Client) -> None:
    """For mypy, which is run over the tests too: what it knows of a chain, and what it refuses."""
    asked = client.visualize(model="digits", layer="layer3", unit=7, slope=0.0, position=(3, 3))
    assert_type(asked.wait(progress=True), Visualization)
    assert_type(asked.wait().image(format="webp"), bytes)
    assert_type(asked.result.achieved_activation, float)
    for event in asked.events():
        assert_type(event, StateEvent | ProgressEvent | PreviewEvent)
    client.visualize(model="digits", layer="layer3")  # type: ignore[call-arg]
    client.visualize(model="digits", layer="layer3", unit=7, slop=0.0)  # type: ignore[call-arg]
    client.visualize(model="digits", layer="layer3", unit="7")  # type: ignore[arg-type]
    client.batch(model="digits", layer="layer3", units=range(8), steps=16)
    asked.image(format="gif")  # type: ignore[arg-type]
