"""Documents are compressed for whoever takes that; images and event streams are not."""

from __future__ import annotations

import asyncio
import gzip

import httpx
import pytest
from fastapi import FastAPI

from tests.service.conftest import PNG, Http, Player

GZIP = {"Accept-Encoding": "gzip"}


async def raw(app: FastAPI, path: str, headers: dict[str, str]) -> tuple[httpx.Headers, bytes]:
    """The header of a response, and its body as it was sent."""
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
        client.stream("GET", path, headers=headers) as response,
    ):
        return response.headers, b"".join([chunk async for chunk in response.aiter_raw()])


def test_a_document_is_compressed_and_the_same(served: Http, app: FastAPI) -> None:
    headers, body = asyncio.run(raw(app, "/openapi.json", GZIP))
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "Accept-Encoding")
    assert int(headers["content-length"]) == len(body)
    plain, whole = asyncio.run(raw(app, "/openapi.json", {"Accept-Encoding": "identity"}))
    assert gzip.decompress(body) == whole
    assert len(body) * 4 < len(whole)
    assert "content-encoding" not in plain


@pytest.mark.parametrize("accepted", ["gzip;q=0", "br, GZIP ; q=0.0, identity", "br"])
def test_who_refuses_it_gets_it_plain(served: Http, app: FastAPI, accepted: str) -> None:
    headers, _ = asyncio.run(raw(app, "/openapi.json", {"Accept-Encoding": accepted}))
    assert "content-encoding" not in headers


def test_short_documents_and_images_are_sent_as_they_are(served: Http, app: FastAPI, player: Player) -> None:
    job_id = served.ask(json={"model": "digits", "layer": "layer3", "unit": 7}).json()["id"]
    player.succeed(job_id)
    path = f"/v1/visualizations/{job_id}/images/0"
    for each in ("/livez", path, f"{path}.npy", f"{path}.webp"):
        headers, body = asyncio.run(raw(app, each, GZIP))
        assert "content-encoding" not in headers, each
    headers, body = asyncio.run(raw(app, path, GZIP))
    assert body == PNG
    part, some = asyncio.run(raw(app, f"{path}.npy", GZIP | {"Range": "bytes=0-2047"}))
    assert (part["content-range"].partition("/")[0], len(some)) == ("bytes 0-2047", 2048)
    again, nothing = asyncio.run(raw(app, path, GZIP | {"If-None-Match": headers["etag"]}))
    assert (again["etag"], nothing) == (headers["etag"], b"")


def test_an_event_stream_is_not_held_back(served: Http, app: FastAPI, player: Player) -> None:
    job_id = served.ask(json={"model": "digits", "layer": "layer3", "unit": 7}).json()["id"]
    player.succeed(job_id)
    headers, body = asyncio.run(raw(app, f"/v1/visualizations/{job_id}/events", GZIP))
    assert "content-encoding" not in headers
    assert b"event: state" in body
