"""A server in front of a gateway that does what proxies and networks do: refuse, drop, cut, lead away."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import httpx

_KEPT = ("authorization", "content-type", "accept", "last-event-id", "idempotency-key")


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]


class Flaky(ThreadingHTTPServer):
    """One request a connection. Each takes the next of ``moods``; with none left it is passed on."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.moods: deque[Mood] = deque()
        self.of_streams: Mood | None = None
        self.seen: list[Seen] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what is tested."""


@contextmanager
def flaky(behind: str = "http://127.0.0.1:1") -> Iterator[Flaky]:
    """Serves in threads until the block ends."""
    with Flaky(behind) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _take(self) -> None:
        server = cast(Flaky, self.server)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        server.seen.append(Seen(self.command, self.path, headers))
        self.close_connection = True
        if server.of_streams is not None and self.path.endswith("/events"):
            server.of_streams(self, body)
        else:
            (server.moods.popleft() if server.moods else passed)(self, body)

    do_GET = do_POST = do_DELETE = _take

    def upstream(self, body: bytes) -> httpx.Request:
        headers = {name: value for name, value in self.headers.items() if name.lower() in _KEPT}
        return httpx.Request(
            self.command, cast(Flaky, self.server).behind + self.path, headers=headers, content=body
        )

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


Mood = Callable[[_Handler, bytes], None]


def passed(handler: _Handler, body: bytes) -> None:
    """Passed on, whole."""
    relay(handler, body, None)


def busy(status: int, body: bytes = b"", **headers: str) -> Mood:
    """Refused."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.answer(status, named, body)


def dropped(handler: _Handler, body: bytes) -> None:
    """The connection breaks before it gets any further."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def lost(handler: _Handler, body: bytes) -> None:
    """It is done, and the answer gets lost."""
    with httpx.Client() as http:
        http.send(handler.upstream(body))
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut(frames: int) -> Mood:
    """A stream breaks off in the middle of the event after so many."""
    return lambda handler, body: relay(handler, body, frames)


def relay(handler: _Handler, body: bytes, frames: int | None) -> None:
    """Passed on as it comes, in chunks."""
    with httpx.Client(timeout=30) as http:
        response = http.send(handler.upstream(body), stream=True)
        try:
            handler.send_response(response.status_code)
            for name in ("content-type", "retry-after", "location"):
                if name in response.headers:
                    handler.send_header(name, response.headers[name])
            handler.send_header("Connection", "close")
            if response.status_code == httpx.codes.NO_CONTENT:
                handler.end_headers()
                return
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            _chunks(handler, response, frames)
        finally:
            response.close()


def _chunks(handler: _Handler, response: httpx.Response, frames: int | None) -> None:
    passed_on = b""
    for chunk in response.iter_raw():
        passed_on += chunk
        events = passed_on.count(b"\n\n") - 1  # the first block says when to come back
        if frames is not None and events >= frames:
            handler.wfile.write(b"%x\r\n%s" % (len(chunk) + 9, chunk + b"id: 9999-"))
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    handler.wfile.write(b"0\r\n\r\n")
