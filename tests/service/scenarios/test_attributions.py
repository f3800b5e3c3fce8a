"""Attributions through the whole service: a real gateway, a real Valkey, a real worker."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from proxygrad.client import AsyncClient, Client, Invalid, InvalidArgument, NotFound

np = pytest.importorskip("numpy", reason="arrays are what is fetched")

pytestmark = pytest.mark.engine

QUESTION: Any = {"model": "digits", "layer": "fc", "unit": 3}


@pytest.fixture(scope="module")
def http(served_url: str) -> Any:
    with httpx.Client(base_url=served_url, timeout=90, trust_env=False) as client:
        yield client


def drawn(size: tuple[int, int] = (32, 32)) -> bytes:
    """A bright bar on black."""
    picture = Image.new("L", size)
    picture.paste(255, (size[0] // 3, 0, size[0] // 2, size[1]))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def sent(http: httpx.Client, image: bytes, **changes: object) -> dict[str, Any]:
    """The attribution of an uploaded image, once it has ended."""
    response = http.post(
        "/v1/attributions",
        files={"image": ("bar.png", image, "image/png")},
        data={"attribution": json.dumps(QUESTION | changes)},
        headers={"Prefer": "wait=60"},
    )
    assert response.status_code in (200, 201, 202), response.text
    document: dict[str, Any] = response.json()
    assert document["state"] == "succeeded", document
    return document


def test_an_uploaded_image_gets_its_heat_map_and_its_numbers(http: httpx.Client) -> None:
    document = sent(http, drawn())
    result, links = document["result"], document["links"]
    assert result["shape"] == [1, 32, 32]
    assert result["unruled"] == []
    difference = result["value"] - result["reference_value"]
    assert abs(result["delta"]["absolute"]) <= 1e-4 * max(1.0, abs(difference))
    contributions = np.load(io.BytesIO(http.get(links["contributions"]).content))
    assert contributions.dtype == np.float32
    assert contributions.shape == (1, 32, 32)
    assert float(contributions.sum()) == pytest.approx(difference, abs=1e-3)
    magnitudes = np.sort(np.abs(contributions.sum(axis=0)), axis=None)
    beyond, from_there = (magnitudes[magnitudes > result["scale"] * by].sum() for by in (1 + 1e-6, 1 - 1e-6))
    assert beyond <= 0.02 * magnitudes.sum() < from_there
    assert not contributions[:, :, :10].any()  # black, as the reference is
    for name in ("heatmap", "overlay"):
        response = http.get(links[name])
        with Image.open(io.BytesIO(response.content)) as picture:
            assert (picture.size, picture.mode) == ((32, 32), "RGB")
        known = http.get(links[name], headers={"If-None-Match": response.headers["etag"]})
        assert known.status_code == 304
    assert next(each["index"] for each in result["logits"]) == int(
        max(result["logits"], key=lambda each: each["value"])["index"]
    )


def test_several_references_are_averaged(served_url: str) -> None:
    """Of every kind, sent and named, beside one attribution for each."""

    def contributions(**reference: Any) -> Any:
        found = client.attribute(drawn(), **QUESTION, **reference).wait(timeout_s=60)
        assert found.result.delta.relative is not None
        assert found.result.delta.relative < 1e-4
        return np.load(io.BytesIO(found.contributions())), found

    with Client(served_url) as client:
        sent = drawn((64, 32))
        together, found = contributions(reference=["zeros", sent, "shuffled", 0.5], references=2, seed=4)
        assert (found.snapshot.progress.step, found.snapshot.progress.steps) == (5, 5)
        each = [contributions(reference=reference)[0] for reference in ("zeros", sent, 0.5)]
        shuffled, _ = contributions(reference="shuffled", references=2, seed=4)
        np.testing.assert_allclose(together, (sum(each) + 2 * shuffled) / 5, rtol=1e-3, atol=1e-5)
        same, found = contributions(reference=["mean", "blurred"])
        assert np.abs(same).max() > 0
        nothing = client.attribute(drawn(), **QUESTION, reference=drawn()).wait(timeout_s=60).result
        assert (nothing.delta.absolute, nothing.delta.relative) == (0.0, None)
        assert [each.share for each in nothing.delta.operations] == [None] * len(nothing.delta.operations)


def test_the_same_picture_is_computed_once_in_whatever_format(http: httpx.Client) -> None:
    first = sent(http, drawn())
    with Image.open(io.BytesIO(drawn())) as picture:
        buffer = io.BytesIO()
        picture.save(buffer, format="WEBP", lossless=True)
    assert sent(http, buffer.getvalue())["id"] == first["id"]
    assert sent(http, drawn(), rule="rescale")["id"] != first["id"]
    assert sent(http, drawn((64, 32)))["id"] != first["id"]


def test_a_visualization_is_attributed_by_its_id(http: httpx.Client) -> None:
    made = http.post("/v1/visualizations", json=QUESTION | {"steps": 8}, headers={"Prefer": "wait=60"}).json()
    body = QUESTION | {"image": {"visualization": made["id"]}, "method": "integrated_gradients", "points": 8}
    response = http.post("/v1/attributions", json=body, headers={"Prefer": "wait=60"})
    document = response.json()
    assert document["state"] == "succeeded", document
    assert document["result"]["value"] == pytest.approx(made["result"]["achieved_activation"], rel=1e-4)
    assert document["result"]["spec"]["image"]["height_px"] == 32


def test_events_and_lists_know_attributions(http: httpx.Client) -> None:
    document = sent(http, drawn(), reference=0.5)
    with http.stream("GET", document["links"]["events"]) as response:
        text = "".join(response.iter_text())
    assert '"state":"succeeded"' in text
    listed = http.get("/v1/attributions", params={"model": "digits"}).json()["attributions"]
    assert document["id"] in [each["id"] for each in listed]
    assert http.delete(f"/v1/attributions/{document['id']}").status_code == 204
    assert http.get(document["links"]["self"]).status_code == 404
    assert http.get(document["links"]["heatmap"]).status_code == 404


def test_the_client_sends_pictures_and_reads_what_comes(served_url: str, tmp_path: Path) -> None:
    (tmp_path / "bar.png").write_bytes(drawn())
    with Client(served_url) as client:
        found = client.attribute(tmp_path / "bar.png", **QUESTION, rule="revealcancel").wait(timeout_s=60)
        again = client.attribute(drawn(), **QUESTION, rule="revealcancel")
        assert (again.id, again.cached) == (found.id, True)
        assert found.result.shape == (1, 32, 32)
        with Image.open(io.BytesIO(found.image("overlay", scale=2))) as picture:
            assert picture.size == (64, 64)
        array = np.load(found.save(tmp_path / "out" / "contributions.npy"))
        assert array.shape == found.result.shape
        assert found.save(tmp_path / "heatmap.png").read_bytes() == found.image()
        made = client.visualize(**QUESTION, steps=4).wait(timeout_s=60)
        of_it = client.attribute(made, **QUESTION).wait(timeout_s=60)
        assert of_it.result.value == pytest.approx(made.result.achieved_activation, rel=1e-4)
        assert client.get_attribution(of_it.id).spec == of_it.spec
        with pytest.raises(InvalidArgument, match="cannot be read"):
            client.attribute(tmp_path / "none.png", **QUESTION)
        with pytest.raises(Invalid, match="picture"):
            client.attribute(b"no picture", **QUESTION)
        of_it.delete()
        with pytest.raises(NotFound):
            of_it.refresh()


def test_the_asynchronous_client_does_too(served_url: str) -> None:
    async def attributed() -> tuple[str, bytes]:
        async with AsyncClient(served_url) as client:
            found = await (await client.attribute(drawn(), **QUESTION)).wait(timeout_s=60)
            return found.state, await found.contributions()

    state, contributions = asyncio.run(attributed())
    assert state == "succeeded"
    assert np.load(io.BytesIO(contributions)).shape == (1, 32, 32)
