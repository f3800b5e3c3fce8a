"""Both kinds of client against a gateway behind a real server: what they offer, refusals, keys."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, assert_type

import pytest
import redis as redis_client
from fastapi import FastAPI

from proxygrad.client import (
    Client,
    Invalid,
    NotFound,
    PreviewEvent,
    ProgressEvent,
    ServiceError,
    StateEvent,
    Unauthorized,
    Visualization,
)
from proxygrad.client._async import client as asynchronous
from proxygrad.client._sync import client as blocking
from service.auth import key_ring
from service.auth.keys import Keys
from tests.proxygrad.client.conftest import QUESTION, Connect
from tests.support.http_server import serving


def test_what_is_refused_says_what_would_be_valid(client: Any) -> None:
    with pytest.raises(NotFound, match="near names: digits") as refused:
        client.visualize(**QUESTION | {"model": "digit"})
    assert (refused.value.code, refused.value.status) == ("unknown_model", 404)
    with pytest.raises(Invalid, match="0 to 63") as invalid:
        client.visualize(**QUESTION | {"unit": 64})
    assert invalid.value.problem.errors[0].maximum == 63
    with pytest.raises(Invalid, match="slop"):
        client.visualize(**QUESTION, slop=0.1)


def test_with_a_key(
    url: str, connect: Connect, redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)
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


def test_another_service_is_recognized_as_another(connect: Connect) -> None:
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


@pytest.mark.parametrize("name", ["Attribution", "Client", "Visualization", "Batch"])
def test_both_kinds_offer_the_same(name: str) -> None:
    one, other = getattr(blocking, name), getattr(asynchronous, f"Async{name}")
    names = {each for each in dir(one) if not each.startswith("_")}
    assert names == {each for each in dir(other) if not each.startswith("_")}
    for each in names:
        if inspect.isfunction(getattr(one, each)):
            ours, theirs = inspect.signature(getattr(one, each)), inspect.signature(getattr(other, each))
            assert str(ours.parameters) == str(theirs.parameters).replace("| Async", "| "), each


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
