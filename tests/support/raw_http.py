"""Requests as the bytes of a socket, and the answers to them."""

from __future__ import annotations

import json
import selectors
import socket
from contextlib import ExitStack, suppress
from typing import Any, cast
from urllib.parse import urlsplit

from proxygrad.protocol.problems import MEDIA_TYPE
from service.problems import KINDS

ID = b"5f0c6a4b7d8e9f00112233445566778a"
BODY = b'{"model": "digits", "layer": "layer3", "unit": 7}'
READ_S = 20.0
#: Of many connections none says anything for so long: they wait for the rest of their requests.
QUIET_S = 1.0
PICTURE = b"/v1/visualizations/%s/images/0" % ID


def post(body: bytes, *headers: bytes, path: bytes = b"/v1/visualizations") -> bytes:
    length = b"Content-Length: %d" % len(body)
    fields = [b"Host: localhost", b"Content-Type: application/json", length, *headers, b"Connection: close"]
    return b"POST %s HTTP/1.1\r\n%s\r\n\r\n%s" % (path, b"\r\n".join(fields), body)


def get(path: bytes, *headers: bytes) -> bytes:
    fields = [b"Host: localhost", *headers, b"Connection: close"]
    return b"GET %s HTTP/1.1\r\n%s\r\n\r\n" % (path, b"\r\n".join(fields))


def chunked(*chunks: bytes) -> bytes:
    head = b"POST /v1/visualizations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Connection: close\r\n"
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


def talk(url: str, sent: bytes) -> bytes:
    """What is answered until the server closes."""
    with connected(url) as client:
        read = b""
        with suppress(BrokenPipeError, ConnectionResetError):  # it has answered and closed before it read all
            client.sendall(sent)
        with suppress(ConnectionResetError):
            while chunk := client.recv(65536):
                read += chunk
        return read


def connected(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=READ_S)


def talk_at_once(url: str, every: list[bytes]) -> list[bytes]:
    """The same for many, each on a connection of its own, until all are closed or quiet for `QUIET_S`."""
    with ExitStack() as opened, selectors.DefaultSelector() as selector:
        read: dict[socket.socket, bytes] = {}
        for sent in every:
            client = opened.enter_context(connected(url))
            client.sendall(sent)
            read[client] = b""
            selector.register(client, selectors.EVENT_READ)
        while selector.get_map() and (ready := selector.select(QUIET_S)):
            for key, _ in ready:
                client = cast(socket.socket, key.fileobj)
                try:
                    chunk = client.recv(65536)
                except ConnectionResetError:
                    chunk = b""
                read[client] += chunk
                if not chunk:
                    selector.unregister(client)
        return list(read.values())


def answers(read: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers in what was read: status, headers, body."""
    found = []
    while read:
        head, _, rest = read.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        length = int(headers.get("content-length", len(rest)))
        found.append((int(status.split(" ")[1]), headers, rest[:length]))
        read = rest[length:]
    return found


def check(status: int, headers: dict[str, str], body: bytes) -> str | None:
    """That an answer is none of a broken server; the code of its problem."""
    assert status < 500, body
    if status < 400:
        return None
    assert headers["content-type"] == MEDIA_TYPE
    problem: dict[str, Any] = json.loads(body)
    assert KINDS[problem["code"]].status == problem["status"] == status
    return str(problem["code"])
