"""Clients that are too slow, on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from proxygrad.protocol.problems import MEDIA_TYPE
from service.server import protocol
from service.server.protocol import MAX_INCOMPLETE_BYTES, bounded
from tests.service.conftest import Http
from tests.support.eventually import until
from tests.support.http_server import serving

LIMIT_S = 0.3


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_S", LIMIT_S)
    monkeypatch.setattr(protocol, "UNREAD_S", LIMIT_S)


@contextmanager
def connected(url: str, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    where = urlsplit(url)
    with socket.socket() as client:
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(30)
        client.connect((where.hostname, where.port))
        yield client


def everything(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    read = b""
    while chunk := client.recv(65536):
        read += chunk
    return read


def alive(client: socket.socket) -> None:
    """Read one answer of `/livez` to its end."""
    read = b""
    while not read.endswith(b"}"):
        read += client.recv(65536)
    assert read.startswith(b"HTTP/1.1 200")


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-type: {MEDIA_TYPE}".encode() in head.lower()
    found: dict[str, Any] = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {found['status']} ".encode())
    return found


def closes_in_time(client: socket.socket) -> dict[str, Any]:
    before_s = time.monotonic()
    found = problem(everything(client))
    assert time.monotonic() - before_s < LIMIT_S + 15
    return found


def test_a_connection_that_says_nothing_is_closed(app: FastAPI) -> None:
    with serving(app) as url, connected(url) as client:
        assert closes_in_time(client)["code"] == "request_timeout"


def test_a_header_that_trickles_has_no_more_time(app: FastAPI) -> None:
    with serving(app) as url, connected(url) as client:
        before_s = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            for byte in b"GET /livez HTTP/1.1\r\nX: " + b"x" * 1000:
                client.send(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - before_s < LIMIT_S + 15


def test_a_second_request_has_the_same_time(app: FastAPI) -> None:
    with serving(app) as url, connected(url) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        alive(client)
        client.sendall(b"GET /livez HT")
        assert closes_in_time(client)["code"] == "request_timeout"


def test_a_quiet_connection_is_kept_between_requests(app: FastAPI) -> None:
    with serving(app) as url, connected(url) as client:
        for _ in range(2):
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            alive(client)
            time.sleep(2 * LIMIT_S)


def test_who_waits_long_for_an_answer_is_not_cut_off(app: FastAPI) -> None:
    async def slow() -> Any:
        for _ in range(4):
            await asyncio.sleep(LIMIT_S / 2)
            yield b"x"

    app.add_api_route("/slow", lambda: StreamingResponse(slow()))
    with serving(app) as url, connected(url) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert everything(client).count(b"\r\nx\r\n") == 4


def test_who_does_not_read_its_answer_is_cut_off(app: FastAPI) -> None:
    ended: list[float] = []

    async def large() -> Any:
        try:
            for _ in range(1000):
                yield b"x" * 65536
        finally:
            ended.append(time.monotonic())

    app.add_api_route("/large", lambda: StreamingResponse(large()))
    with serving(app) as url, connected(url, receive_bytes=4096) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        before_s = time.monotonic()
        while not ended and time.monotonic() - before_s < 30:
            time.sleep(0.02)
        assert ended


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET /\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_with_a_problem(app: FastAPI, request_: bytes) -> None:
    with serving(app) as url, connected(url) as client:
        client.sendall(request_)
        assert closes_in_time(client)["code"] == "bad_request"


@pytest.mark.parametrize(
    "start", [b"", b"GET /", b"GET /livez HTTP/1.1\r\nX: ", b"GET /livez HTTP/1.1\r\n" + b"X: 1\r\n" * 9]
)
def test_a_header_that_is_too_large_is_called_so_however_it_comes(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEADER_S", 30.0)
    with serving(app) as url, connected(url) as client:
        client.sendall(start + b"a" * 10)
        time.sleep(0.1)  # so that it comes in pieces
        client.sendall(b"a" * MAX_INCOMPLETE_BYTES)
        assert problem(everything(client))["code"] == "headers_too_large"


def test_a_large_body_is_answered_and_the_rest_not_read(app: FastAPI) -> None:
    with serving(app) as url, connected(url) as client:
        head = b"POST /v1/visualizations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(head + b"Content-Length: 100000000\r\n\r\n" + b" " * 1000)
        assert closes_in_time(client)["code"] == "body_too_large"


@pytest.mark.parametrize("route", [b"POST /v1/nowhere", b"GET /livez", b"DELETE /v1/batches/x"])
def test_a_body_that_no_route_reads_has_no_more_time(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, route: bytes
) -> None:
    monkeypatch.setattr(protocol, "BODY_S", LIMIT_S)
    with serving(app) as url, connected(url) as client:
        client.sendall(route + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n")
        client.settimeout(0.02)
        before_s, read = time.monotonic(), b""
        with suppress(OSError):
            while time.monotonic() - before_s < 30:
                client.send(b" ")
                with suppress(TimeoutError):
                    chunk = client.recv(65536)
                    if not chunk:
                        break
                    read += chunk
        assert time.monotonic() - before_s < LIMIT_S + 15
        assert read.startswith(b"HTTP/1.1 ")


def test_a_body_that_comes_in_time_is_followed_by_the_next_request(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_S", LIMIT_S)
    monkeypatch.setattr(protocol, "HEADER_S", 30.0)
    with serving(app) as url, connected(url) as client:
        for _ in range(2):
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n")
            alive(client)
            client.sendall(b"abc")
            time.sleep(LIMIT_S * 1.5)
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        alive(client)


def test_connections_beyond_the_limit_are_refused(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    with serving(app, bounded(2)) as url, connected(url) as first, connected(url) as second:
        for client in (first, second):
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            alive(client)
        for _ in range(3):
            with connected(url) as third:
                assert problem(everything(third))["code"] == "too_many_connections"
        second.close()
        until(lambda: _is_let_in(url))
    refusals = [record for record in caplog.records if record.name == protocol.__name__]
    assert len(refusals) == 1, "logged once a minute"


def _is_let_in(url: str) -> bool:
    with connected(url) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        try:
            return everything(client).startswith(b"HTTP/1.1 200")
        except ConnectionResetError:
            return False


@pytest.mark.parametrize("path", ["/livez", "/", "/openapi.json", "/docs", "/v1/models", "/metrics"])
def test_head_has_the_header_of_get_and_no_body(served: Http, app: FastAPI, path: str) -> None:
    request = f"{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    found = {}
    with serving(app) as url:
        for method in (b"GET ", b"HEAD "):
            with connected(url) as client:
                client.sendall(method + request)
                found[method] = everything(client).partition(b"\r\n\r\n")
    assert found[b"HEAD "][2] == b""
    header = {
        method: {
            line for line in head.lower().splitlines() if not line.startswith((b"date:", b"content-length:"))
        }
        for method, (head, _, _) in found.items()
    }
    assert header[b"HEAD "] == header[b"GET "]


def test_head_of_an_event_stream_ends(served: Http, app: FastAPI) -> None:
    job_id = served.ask(json={"model": "digits", "layer": "layer3", "unit": 7}).json()["id"]
    with serving(app) as url, connected(url) as client:
        path = f"/v1/visualizations/{job_id}/events"
        client.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b"text/event-stream" in everything(client)
    assert app.state.backend.events.followers == 0
