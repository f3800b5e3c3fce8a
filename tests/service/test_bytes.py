"""Whatever bytes come through a socket: never a fault of the server, always an answer that says why."""

from __future__ import annotations

import gzip
import json
import random
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from service.problems import KINDS, MEDIA_TYPE
from tests.service.conftest import Http, Player
from tests.service.serving import serving

ID = b"5f0c6a4b7d8e9f00112233445566778a"
BODY = b'{"model": "digits", "layer": "layer3", "unit": 7}'
READ_S = 20.0
#: Of many connections none says anything for so long: they wait for the rest of their requests.
QUIET_S = 0.5


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


PICTURE = b"/v1/visualizations/%s/images/0" % ID

#: What is sent, and the codes that it may be answered with, request by request; None: it is no problem.
WIRE: dict[str, tuple[bytes, tuple[str | None, ...]]] = {
    "text that is no UTF-8": (post(b'{"model": "\xff\xfe", "layer": "a", "unit": 1}'), ("invalid_json",)),
    "half a surrogate pair": (post(b'{"model": "\\ud800", "layer": "a", "unit": 1}'), ("invalid_json",)),
    "a whole pair": (
        post(b'{"model": "\\ud83d\\ude00", "layer": "a", "unit": 1}'),
        ("unknown_model",),
    ),
    "NUL in a name": (post(b'{"model": "digits\\u0000", "layer": "a", "unit": 1}'), ("unknown_model",)),
    "text that goes the other way": (
        post('{"model": "\u202edigits\u2066", "layer": "a", "unit": 1}'.encode()),
        ("unknown_model",),
    ),
    "NaN": (post(BODY[:-1] + b', "slope": NaN}'), ("invalid_request",)),
    "infinity": (post(BODY[:-1] + b', "slope": -Infinity}'), ("invalid_request",)),
    "a number beyond all": (post(BODY[:-1] + b', "slope": 1e400}'), ("invalid_request",)),
    "a number of 3000 digits": (post(BODY[:-1] + b', "seed": %s}' % (b"9" * 3000)), ("invalid_request",)),
    "a number of 60,000 digits": (post(BODY[:-1] + b', "seed": %s}' % (b"9" * 60_000)), ("invalid_json",)),
    "60,000 brackets": (post(b"[" * 60_000), ("json_too_deep",)),
    "the same field twice": (post(BODY[:-1] + b', "unit": 64}'), ("unit_out_of_range",)),
    "nulls": (post(b'{"model": null, "layer": null, "unit": null}'), ("invalid_request",)),
    "a mark before the JSON": (post(b"\xef\xbb\xbf" + BODY), ("invalid_json",)),
    "JSON of 16 bits": (post(BODY.decode().encode("utf-16")), ("invalid_json",)),
    "no body": (post(b""), ("invalid_json",)),
    "a gzip body": (post(gzip.compress(BODY), b"Content-Encoding: gzip"), ("invalid_json",)),
    "another type": (
        post(BODY).replace(b"application/json", b"application/\xff; charset=\x80"),
        ("unsupported_media_type",),
    ),
    "two types": (
        post(BODY, b"Content-Type: text/plain"),
        ("unsupported_media_type", None),
    ),
    "a chunk of no size": (chunked(b"zz\r\n"), ("bad_request",)),
    "a chunk that is longer than it says": (chunked(b"3\r\n" + BODY + b"\r\n0\r\n\r\n"), ("bad_request",)),
    "chunks with extensions and a trailer": (
        chunked(b"%x;a=b\r\n%s\r\n" % (len(BODY), BODY), b"0\r\nX-Trailer: 1\r\n\r\n"),
        (None,),
    ),
    "chunks and a length": (
        chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)).replace(
            b"Transfer-", b"Content-Length: 3\r\nTransfer-"
        ),
        ("bad_request", None),
    ),
    "a coding that there is not": (
        chunked(b"0\r\n\r\n").replace(b"chunked", b"gzip, chunked"),
        ("bad_request",),
    ),
    "a length below zero": (post(BODY).replace(b"Length: ", b"Length: -"), ("bad_request",)),
    "a length that is none": (post(BODY).replace(b"Length: ", b"Length: 0x"), ("bad_request",)),
    "a length of 30 digits": (post(BODY).replace(b"Length: ", b"Length: " + b"9" * 30), ("bad_request",)),
    "two lengths": (post(BODY, b"Content-Length: 7"), ("bad_request",)),
    "100 KB of one header": (get(b"/livez", b"X: " + b"x" * 100_000), ("headers_too_large",)),
    "a header without a name": (get(b"/livez", b": x"), ("bad_request",)),
    "a header with NUL": (get(b"/livez", b"X: a\0b"), ("bad_request",)),
    "a folded header": (get(b"/livez", b"X: a\r\n b"), (None,)),
    "no host": (b"GET /v1/models HTTP/1.1\r\n\r\n", ("bad_request",)),
    "two hosts": (get(b"/v1/models", b"Host: localhost"), ("bad_request",)),
    "a host that is none": (get(b"/v1/models").replace(b"localhost", b"\xff@/[::"), ("unknown_host",)),
    "an address of another": (
        b"GET http://example.org/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ("not_found",),
    ),
    "HTTP/1.0": (b"GET /livez HTTP/1.0\r\n\r\n", (None,)),
    "HTTP/2 by surprise": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ("unknown_host", "bad_request")),
    "a method of one's own": (get(b"/livez").replace(b"GET", b"BREW"), ("method_not_allowed",)),
    "everything": (get(b"*").replace(b"GET", b"OPTIONS"), ("not_found",)),
    "another protocol": (
        get(b"/v1/models", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"),
        (None,),
    ),
    "a path of 10 KB": (get(b"/v1/models/" + b"a" * 10_000), ("unknown_model",)),
    "a path of 60 KB": (get(b"/v1/models/" + b"a" * 60_000), ("headers_too_large", "bad_request")),
    "NUL in a path": (get(b"/v1/models/%00"), ("unknown_model",)),
    "no UTF-8 in a path": (get(b"/v1/models/%ff%fe"), ("unknown_model",)),
    "half a pair in a path": (get(b"/v1/models/%ed%a0%80"), ("unknown_model",)),
    "a percent sign alone": (get(b"/v1/models/%"), ("unknown_model",)),
    "bytes in a path": (get(b"/v1/models/\xff"), ("bad_request",)),
    "a slash in a name": (get(b"/v1/models/..%2f..%2fetc"), ("not_found",)),
    "a new line in an id": (get(b"/v1/visualizations/" + ID + b"%0a"), ("invalid_request",)),
    "digits of others in an id": (get(b"/v1/visualizations/" + b"%D9%A1" * 32), ("invalid_request",)),
    "junk in a query": (get(b"/v1/visualizations?%00=%ff&&&=&state=%ed%a0%80"), ("invalid_request",)),
    "a cursor of junk": (get(b"/v1/visualizations?cursor=%ff%00_-=="), ("invalid_request",)),
    "a cursor that is deep": (
        get(b"/v1/visualizations?cursor=W1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1s"),
        ("invalid_request",),
    ),
    "a wait that is no number": (get(b"/v1/visualizations/" + ID + b"?wait=NaN"), ("invalid_request",)),
    "a wait without end": (get(b"/v1/visualizations/" + ID + b"?wait=1e400"), ("invalid_request",)),
    "a limit of 5000 digits": (
        get(b"/v1/visualizations?limit=" + b"9" * 5000),
        ("invalid_request",),
    ),
    "a preference of junk": (post(BODY, b'Prefer: wait=\xb2, wait="";;=, wait=9e9, \xff'), (None,)),
    "a key of bytes": (post(BODY, b"Idempotency-Key: \xff\xfe"), (None,)),
    "an event id of junk": (
        get(b"/v1/visualizations/" + ID + b"/events", b"Last-Event-ID: \xff-1"),
        ("invalid_request",),
    ),
    "an event id beyond all": (
        get(b"/v1/visualizations/" + ID + b"/events?last_event_id=" + b"9" * 30 + b"-0"),
        ("invalid_request",),
    ),
    "what is accepted is junk": (get(PICTURE, b"Accept: \xff/\x80;q=\xb2"), ("not_acceptable",)),
    "an authorization of junk": (get(b"/v1/models", b"Authorization: \xff \xfe"), (None,)),
    "a range of an unknown picture": (get(PICTURE, b"Range: bytes=\xff-"), ("unknown_visualization",)),
    "an origin of bytes": (post(BODY, b"Origin: \xff://\x80"), ("forbidden",)),
}


@pytest.fixture
def url(served: Http, app: FastAPI) -> Iterator[str]:
    """Of a server, on a real port, in front of a worker that is played."""
    with serving(app) as url:
        yield url


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


def test_bytes_are_answered_for_what_they_are(url: str) -> None:
    wrong = {}
    for name, (sent, expected) in WIRE.items():
        read = answers(talk(url, sent))
        code = check(*read[0]) if read else "no answer"
        if code not in expected:
            wrong[name] = (code, expected)
    assert wrong == {}
    assert [check(*each) for each in answers(talk(url, get(b"/livez")))] == [None]


def test_a_picture_takes_any_header(url: str, served: Http, player: Player) -> None:
    """Ranges, tags and dates that are none are passed over, or refused with a problem."""
    job_id = served.ask(content=BODY, headers={"Content-Type": "application/json"}).json()["id"]
    player.succeed(job_id)
    path = f"/v1/visualizations/{job_id}/images/0".encode()
    for junk in (
        b"",
        b"\xff",
        b"bytes=-",
        b"bytes=9-1",
        b"bytes=" + b"9" * 400 + b"-",
        b"*",
        b'W/"',
        b'"' * 999,
    ):
        for name in (
            b"Range",
            b"If-Range",
            b"If-None-Match",
            b"If-Modified-Since",
            b"Accept-Encoding",
            b"TE",
        ):
            sent = get(
                path, b"%s: %s" % (name, junk), b"Range: bytes=0-3" if name == b"If-Range" else b"X: y"
            )
            statuses = {status for status, _, _ in answers(talk(url, sent)) if status != 200}
            assert statuses <= {206, 304, 416}, (name, junk)


def test_requests_in_one_line_are_answered_in_order(url: str) -> None:
    line = get(b"/v1/models") + post(BODY) + post(b"{") + get(b"/nowhere")
    line = line.replace(b"Connection: close\r\n", b"") + get(b"/livez")
    assert [check(*each) for each in answers(talk(url, line))] == [
        None,
        None,
        "invalid_json",
        "not_found",
        None,
    ]


def test_what_follows_a_body_is_not_taken_for_its_end(url: str) -> None:
    """Smuggling: of two readings of a length neither may hide a request."""
    sent = post(BODY, b"Transfer-Encoding: identity") + get(b"/livez")
    assert {check(*each) for each in answers(talk(url, sent))} <= {None, "bad_request"}


#: What mutations are made of. Nothing that waits: a mutated number must not become a minute.
BASES = (
    post(BODY, b"Idempotency-Key: k", b"Accept: application/json"),
    post(BODY[:-1] + b', "steps": 3, "seed": 5, "position": [1, 2], "objective": "neuron"}'),
    chunked(b"%x\r\n%s\r\n" % (len(BODY), BODY), b"0\r\n\r\n"),
    get(b"/v1/visualizations?limit=2&state=queued&model=digits&cursor=W10"),
    get(PICTURE + b".webp?width=64", b"Accept: image/webp;q=0.5", b'If-None-Match: "a"', b"Range: bytes=0-9"),
    get(b"/v1/visualizations/" + ID + b"/events", b"Last-Event-ID: 5-0"),
    get(b"/v1/models/digits/layers/layer3") + get(b"/docs") + get(b"/openapi.json"),
    post(b"", path=b"/v1/visualizations/" + ID + b"/cancel"),
    get(b"/v1/visualizations/" + ID).replace(b"GET", b"DELETE"),
)
NASTY = (
    b"\0",
    b"\xff",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"%00",
    b"%ff",
    b" ",
    b":",
    b'"',
    b"{",
    b"[",
    b"e999",
    b"\t",
)


def mutated(sent: bytes, chance: random.Random) -> bytes:
    """``sent`` with up to five of its places changed."""
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(sent) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            sent = sent[:at] + bytes([chance.randrange(256)]) + sent[at + 1 :]
        elif kind == 1:
            sent = sent[:at] + chance.choice(NASTY) + sent[at:]
        elif kind == 2:
            sent = sent[:at] + sent[at + chance.randint(1, 20) :]
        else:
            sent = sent[:at] + sent[at : at + chance.randint(1, 60)] * 2 + sent[at:]
    return sent


def test_no_mutation_of_a_request_breaks_the_server_or_leaves_anything_open(url: str, app: FastAPI) -> None:
    chance = random.Random(20261121)
    counts: dict[str | None, int] = {}
    for _ in range(6):
        for read in talk_at_once(url, [mutated(each, chance) for each in BASES * 9]):
            for answer in answers(read):
                code = check(*answer)
                counts[code] = counts.get(code, 0) + 1
    assert len(counts) >= 8, counts  # it was no fuzz of one wall
    assert [check(*each) for each in answers(talk(url, get(b"/livez")))] == [None]
    reader = app.state.gateway.live._reader
    deadline_s = time.monotonic() + READ_S
    while reader is not None and reader.mailboxes:
        assert time.monotonic() < deadline_s, reader.mailboxes
        time.sleep(0.05)
