"""HTTP requests as bytes, from connections that are kept: a client that takes little time of its own."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A process that serves, and where."""

    pid: int
    url: str

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass
class Turn:
    """What one turn of one kind came to."""

    per_s: float
    cpu_s: float
    latencies_s: list[float] = field(repr=False)


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: the bytes of the next, and the status that each is answered with."""

    name: str
    server: Server
    status: int
    next: Callable[[], bytes]


class Connection(asyncio.Protocol):
    """Sends one request after another until the time is over."""

    def __init__(self, kind: Kind, until_s: float, latencies_s: list[float]) -> None:
        self._kind = kind
        self._until_s = until_s
        self._latencies_s = latencies_s
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if not end or (length is not None and len(body) < int(length[1])):
            return
        self._latencies_s.append(time.perf_counter() - self._sent_s)
        if int(head[9:12]) != self._kind.status:
            self._fail(f"{self._kind.name}: {self._received[:1000]!r}")
        elif time.perf_counter() >= self._until_s:
            self._transport.close()
            self.done.set_result(None)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._fail(f"{self._kind.name}: the connection was lost: {exc}")

    def _send(self) -> None:
        self._received, self._sent_s = b"", time.perf_counter()
        self._transport.write(self._kind.next())

    def _fail(self, what: str) -> None:
        self._transport.close()
        self.done.set_exception(SystemExit(what))


async def turn(kind: Kind, connections: int, seconds: float) -> Turn:
    """That many connections, for so long."""
    loop, where = asyncio.get_running_loop(), httpx.URL(kind.server.url)
    latencies_s: list[float] = []
    before_s, began_s = kind.server.cpu_s, time.perf_counter()
    opened = [
        loop.create_connection(
            lambda: Connection(kind, began_s + seconds, latencies_s), where.host, where.port or 80
        )
        for _ in range(connections)
    ]
    each = [protocol for _, protocol in await asyncio.gather(*opened)]
    await asyncio.gather(*(protocol.done for protocol in each))
    taken_s = time.perf_counter() - began_s
    used_s = kind.server.cpu_s - before_s
    return Turn(len(latencies_s) / taken_s, used_s / len(latencies_s), latencies_s)


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """One request as it is sent."""
    lines = {"Host": "127.0.0.1", **headers}
    if body:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body
