"""Requests with bytes changed by chance: none breaks the server or leaves anything open in it."""

from __future__ import annotations

import random
import time

from fastapi import FastAPI

from tests.service.scenarios.test_bytes import url  # noqa: F401 - a fixture
from tests.support.raw_http import (
    BODY,
    ID,
    PICTURE,
    READ_S,
    answers,
    check,
    chunked,
    get,
    post,
    talk,
    talk_at_once,
)

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


def test_no_mutation_of_a_request_breaks_the_server_or_leaves_anything_open(
    url: str,  # noqa: F811
    app: FastAPI,
) -> None:
    chance = random.Random(20261121)
    counts: dict[str | None, int] = {}
    for _ in range(6):
        for read in talk_at_once(url, [mutated(each, chance) for each in BASES * 9]):
            for answer in answers(read):
                code = check(*answer)
                counts[code] = counts.get(code, 0) + 1
    assert len(counts) >= 8, counts  # it was no fuzz of one wall
    assert [check(*each) for each in answers(talk(url, get(b"/livez")))] == [None]
    subscriber = app.state.backend.events._subscriber
    deadline_s = time.monotonic() + READ_S
    while subscriber is not None and subscriber.subscriptions:
        assert time.monotonic() < deadline_s, subscriber.subscriptions
        time.sleep(0.05)
