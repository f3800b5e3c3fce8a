"""A receiver of webhooks: a real server on loopback that keeps what it gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.support.eventually import until

Reply = Callable[[int], tuple[int, dict[str, str]]]


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """`reply` says status and headers, by the number of the request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: list[Received] = []

    def wait_for(self, count: int) -> list[Received]:
        until(lambda: len(self.received) >= count, 30)
        return self.received


def ok(number: int) -> tuple[int, dict[str, str]]:
    return 204, {}


@contextmanager
def receiving(reply: Reply = ok) -> Iterator[Receiver]:
    """A receiver, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.received.append(Received(self.path, dict(self.headers), body))
            status, headers = reply(len(receiver.received))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
