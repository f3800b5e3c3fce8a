"""Whatever bytes come through a socket: never a fault of the server, always an answer that says why."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from tests.service.conftest import Http, Player
from tests.support.http_server import serving
from tests.support.raw_http import BODY, ID, PICTURE, answers, check, chunked, get, post, talk

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
    "a gzip body": (post(gzip.compress(BODY), b"Content-Encoding: gzip"), ("unsupported_media_type",)),
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
    # More than a segment of loopback would be answered before it is read, and the answer might get lost.
    "50 KB of one header": (get(b"/livez", b"X: " + b"x" * 50_000), ("headers_too_large",)),
    "a header without a name": (get(b"/livez", b": x"), ("bad_request",)),
    "a header with NUL": (get(b"/livez", b"X: a\0b"), ("bad_request",)),
    "a folded header": (get(b"/livez", b"X: a\r\n b"), (None,)),
    "no host": (b"GET /v1/models HTTP/1.1\r\n\r\n", ("bad_request",)),
    "two hosts": (get(b"/v1/models", b"Host: localhost"), ("bad_request",)),
    "a host that is none": (get(b"/v1/models").replace(b"localhost", b"\xff@/[::"), ("unknown_host",)),
    "an address of another": (
        b"GET http://example.org/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ("unknown_host",),
    ),
    "the whole address": (
        get(b"HTTP://localhost:80/v1/models/nobody").replace(b"Host: localhost", b"Host: example.org"),
        ("unknown_model",),
    ),
    "an address without a path": (get(b"http://localhost?x"), (None,)),
    "an address of no host": (get(b"http:///v1/models"), ("unknown_host",)),
    "HTTP/1.0": (b"GET /livez HTTP/1.0\r\n\r\n", (None,)),
    "HTTP/2 by surprise": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ("unknown_host", "bad_request")),
    "a method of one's own": (get(b"/livez").replace(b"GET", b"BREW"), ("method_not_allowed",)),
    "everything": (get(b"*").replace(b"GET", b"OPTIONS"), ("not_found",)),
    "another protocol": (
        get(b"/v1/models", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"),
        (None,),
    ),
    "a path of 10 KB": (get(b"/v1/models/" + b"a" * 10_000), ("unknown_model",)),
    "a path of 50 KB": (get(b"/v1/models/" + b"a" * 50_000), ("headers_too_large",)),
    "NUL in a path": (get(b"/v1/models/%00"), ("unknown_model",)),
    "no UTF-8 in a path": (get(b"/v1/models/%ff%fe"), ("unknown_model",)),
    "half a pair in a path": (get(b"/v1/models/%ed%a0%80"), ("unknown_model",)),
    "a percent sign alone": (get(b"/v1/models/%"), ("unknown_model",)),
    "bytes in a path": (get(b"/v1/models/\xff"), ("bad_request",)),
    "a slash in a name": (get(b"/v1/models/..%2f..%2fetc"), ("not_found",)),
    "a new line in an id": (get(b"/v1/visualizations/" + ID + b"%0a"), ("unknown_visualization",)),
    "digits of others in an id": (get(b"/v1/visualizations/" + b"%D9%A1" * 32), ("unknown_visualization",)),
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
    "a preference of junk": (
        post(BODY, b'Prefer: wait=\xb2, wait="";;=, wait=9e9, \xff'),
        ("invalid_request",),
    ),
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
