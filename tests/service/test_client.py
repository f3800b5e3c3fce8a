"""The client against a gateway behind a real server."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Timer

import pytest
from fastapi import FastAPI

from service.client import Client, Refused, ServiceError, ServiceUnreachable
from tests.service.conftest import PNG, Http, Player
from tests.service.serving import serving


@pytest.fixture
def client(served: Http, app: FastAPI) -> Iterator[Client]:
    with serving(app) as url, Client(url) as client:
        yield client


def test_ask_follow_fetch(client: Client, player: Player) -> None:
    asked = client.submit(model="digits", layer="layer3", unit=7, slope=0.0)
    assert (asked.state, asked.spec.slope, asked.answered_at_once) == ("queued", 0.0, False)
    begin, end = Timer(0.3, player.begin, [asked.id]), Timer(0.7, player.succeed, [asked.id])
    begin.start()
    end.start()
    seen = list(client.follow(asked))
    assert sorted({one.state for one in seen}) == ["queued", "running", "succeeded"]
    assert seen[-1].result is not None
    assert seen[-1].result.achieved_activation == 3.5
    assert client.image(asked.id) == PNG
    assert client.submit(model="digits", layer="layer3", unit=7, slope=0.0).answered_at_once


def test_models_and_layers(client: Client) -> None:
    assert {model.name: model.ready for model in client.models()} == {"broken": False, "digits": True}
    assert [layer.units for layer in client.layers("digits")] == [32, 64, 10]


def test_a_problem_becomes_an_exception_with_its_code(client: Client) -> None:
    with pytest.raises(Refused, match="near names: digits") as refused:
        client.submit(model="digit", layer="layer3", unit=7)
    assert (refused.value.code, refused.value.problem.status) == ("unknown_model", 404)


def test_a_server_that_is_not_there_is_named() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:1"):
        client.models()


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "ftp://127.0.0.1", "http://[", "http://a b/"])
def test_what_is_not_an_address_is_an_error_of_this_package(url: str) -> None:
    with pytest.raises(ServiceUnreachable), Client(url) as client:
        client.models()


def test_another_service_is_recognised_as_another() -> None:
    other = FastAPI()

    @other.get("/v1/models")
    def models() -> str:
        return "hello"

    with serving(other) as url, Client(url) as client:
        with pytest.raises(ServiceError, match="does not answer as"):
            client.models()
        with pytest.raises(ServiceError, match="404"):
            client.get("0" * 32)
