"""Every response has the id of its request: the caller's where it is sane, else a new one."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.middleware.request_id import RequestId
from tests.service.server.test_run import gateway
from workers import logs

MADE = r"[0-9a-f]{32}"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    current = logs.request.get()
    assert current is not None
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": current.id.encode()})


def ask(*ids: str, app: Any = echo) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(RequestId(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/", headers=[("X-Request-ID", each) for each in ids])

    return asyncio.run(send())


@pytest.mark.parametrize(
    "given",
    ["a", "018f9d2e-7b1c-7e5a-9c5e-0f4d2b8a6c11", "Root=1-67891233-abcdef012345678912345678", "x" * 128],
)
def test_a_sane_one_is_kept(given: str) -> None:
    answer = ask(given)
    assert answer.headers.get_list("x-request-id") == [given]
    assert (answer.text, answer.headers["a"]) == (given, "b")


@pytest.mark.parametrize(
    "given",
    [
        *([], [""], ["x" * 129], ["a b"], ["a\tb"], ["<b>"], ["a;b"], ['"a"'], ["a", "a"]),
        [f"key=pg_{'0a' * 6}_{'1b' * 32}"],
    ],
)
def test_else_one_is_made(given: list[str]) -> None:
    answers = [ask(*given) for _ in range(2)]
    for answer in answers:
        assert re.fullmatch(MADE, answer.headers["x-request-id"])
        assert answer.text == answer.headers["x-request-id"]
    assert answers[0].text != answers[1].text


def test_an_unexpected_error_has_it_too() -> None:
    failing = FastAPI()

    @failing.get("/")
    def fail() -> None:
        raise RuntimeError

    answer = ask("mine", app=failing)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")


def test_a_gateway_logs_it_as_json_with_each_request(redis_url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = {"REDIS_URL": redis_url, "PROXYGRAD_LOG": "json"}
    with out.open("w") as file, gateway(tmp_path / "home", file, **own) as process:
        deadline = threading.Timer(120, process.kill)
        deadline.start()
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        url = re.fullmatch(r"listening on (http://\S+)", first["message"])
        assert url
        assert any("startup complete" in line for line in iter(process.stderr.readline, ""))
        try:
            for path in ("/v1/models", "/livez", "/nowhere/%1b%5b31m"):
                answer = httpx.get(f"{url[1]}{path}", headers={"X-Request-ID": "mine"}, timeout=60)
                assert answer.headers["x-request-id"] == "mine"
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=60)
        finally:
            deadline.cancel()
            process.kill()
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(each["target"], each["status"]) for each in entries] == [
        ("/v1/models", 503),
        ("/nowhere/%1B%5B31m", 404),
    ]
    assert {each["request_id"] for each in entries} == {"mine"}
    assert [line for line in (rest or "").splitlines() if not line.startswith("{")] == []
