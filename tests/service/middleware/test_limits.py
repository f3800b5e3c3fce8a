"""How much a request may bring: bodies, headers, and what it may cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import redis as redis_client

from proxygrad.spec import ModelInfo
from service.app import create_app
from service.middleware import limits
from service.middleware.limits import MAX_DROPPED_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, RequestLimits
from service.settings import ServiceSettings
from tests.service.conftest import Http
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}
BODY = b'{"model": "digits", "layer": "layer3", "unit": 7}'
JSON = {"Content-Type": "application/json"}
LIMIT = 64 * 1024


def refused(response: httpx.Response, status: int, code: str) -> str:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return str(response.json()["detail"])


@pytest.mark.parametrize(("size", "closed"), [(LIMIT + 1, False), (MAX_DROPPED_BYTES + 1, True)])
def test_a_large_body_is_refused_whatever_is_in_it(served: Http, size: int, closed: bool) -> None:
    response = served.ask(content=b" " * size, headers=JSON)
    assert f"{LIMIT} bytes" in refused(response, 413, "body_too_large")
    assert (response.headers.get("connection") == "close") is closed


def test_a_large_body_without_a_length_is_dropped_for_a_while_and_then_read_no_further(served: Http) -> None:
    sent = [0]

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent[0] += 4096
            yield b" " * 4096

    refused(served.ask(content=endless(), headers=JSON), 413, "body_too_large")
    assert sent[0] <= MAX_DROPPED_BYTES + 4096


def test_a_body_that_is_too_large_is_taken_before_the_answer(served: Http) -> None:
    """A proxy that is still sending when the connection ends answers 502 itself."""
    for announced in ({"Content-Length": str(10 * LIMIT)}, {}):
        sent = [0]

        async def body(sent: list[int] = sent) -> AsyncIterator[bytes]:
            for _ in range(10):
                sent[0] += LIMIT
                yield b" " * LIMIT

        refused(served.ask(content=body(), headers=JSON | announced), 413, "body_too_large")
        assert sent == [10 * LIMIT]


def test_a_body_that_waits_for_leave_is_refused_without_it(served: Http) -> None:
    sent = [0]

    async def body() -> AsyncIterator[bytes]:
        sent[0] += 1
        yield b" " * 2 * LIMIT

    expecting = JSON | {"Content-Length": str(2 * LIMIT), "Expect": "100-continue"}
    refused(served.ask(content=body(), headers=expecting), 413, "body_too_large")
    assert sent == [0]


def test_a_body_just_within_the_limit_is_read(served: Http) -> None:
    assert served.ask(content=BODY.ljust(LIMIT), headers=JSON).status_code == 202


def test_the_operator_sets_the_limit(settings: ServiceSettings, served: Http) -> None:
    http = Http(create_app(settings.model_copy(update={"max_body_bytes": 1024})))
    assert "1024 bytes" in refused(http.ask(content=BODY.ljust(1025), headers=JSON), 413, "body_too_large")
    assert http.ask(content=BODY.ljust(1024), headers=JSON).status_code == 202


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e9", "", "0x10"])
def test_a_length_that_is_none_is_not_believed(served: Http, length: str) -> None:
    response = served.ask(content=BODY, headers=JSON | {"Content-Length": length})
    assert response.status_code in (202, 413)


def test_a_header_flood_is_refused(served: Http) -> None:
    many = {f"X-{number}": "x" for number in range(MAX_HEADERS + 1)}
    assert f"at most {MAX_HEADERS}" in refused(
        served.get("/v1/models", headers=many), 431, "headers_too_large"
    )
    long = {"X-Long": "x" * MAX_HEADER_BYTES}
    refused(served.get("/v1/models", headers=long), 431, "headers_too_large")
    refused(served.get(f"/v1/models?{'x' * MAX_HEADER_BYTES}"), 431, "headers_too_large")
    assert served.get("/v1/models", headers={f"X-{number}": "x" for number in range(50)}).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(served: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield BODY[:10]
        await asyncio.sleep(5)
        yield BODY[10:]

    detail = refused(served.ask(content=slow(), headers=JSON), 408, "request_timeout")
    assert "10 bytes" in detail


def test_a_body_that_trickles_has_no_more_time(served: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.3)

    async def trickling() -> AsyncIterator[bytes]:
        for byte in BODY:
            await asyncio.sleep(0.05)
            yield bytes([byte])

    refused(served.ask(content=trickling(), headers=JSON), 408, "request_timeout")


def test_who_waits_for_an_answer_is_not_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the body is there, listening for the end of the connection takes as long as it takes."""
    monkeypatch.setattr(limits, "BODY_S", 0.05)
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.sleep(0.2)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "path": "/", "query_string": b"", "headers": []}
    asyncio.run(RequestLimits(app, LIMIT, LIMIT, "/upload").handle(scope, receive, send))
    assert seen == ["http.request", "http.disconnect"]


# -- what it may cost ----------------------------------------------------------------------------------------


def test_a_request_that_costs_too_much_is_told_its_cost_and_the_limit(
    settings: ServiceSettings, redis: redis_client.Redis, info: ModelInfo
) -> None:
    catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=60)
    http = Http(create_app(settings.model_copy(update={"max_cost": 0.2})))
    assert http.ask(json=QUESTION | {"steps": 195}).status_code == 202  # 195 × 32 × 32 / 10⁶ = 0.19968
    response = http.ask(json=QUESTION | {"steps": 196})
    detail = refused(response, 422, "cost_too_high")
    assert "0.200704 megapixel steps" in detail
    assert "0.2 (its operator's PROXYGRAD_MAX_COST)" in detail
    field_error = response.json()["errors"][0]
    assert (field_error["location"], field_error["value"], field_error["maximum"]) == (
        ["body"],
        0.200704,
        0.2,
    )


def test_by_default_the_largest_single_picture_is_within_the_cost(
    served: Http, settings: ServiceSettings
) -> None:
    largest = {"steps": settings.max_steps, "size_px": settings.max_size_px}
    assert served.ask(json=QUESTION | largest).status_code == 202
