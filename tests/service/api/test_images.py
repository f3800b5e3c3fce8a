"""Pictures over HTTP: their forms, tags, ranges and refusals."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from PIL import Image

from tests.service.api.test_visualizations import QUESTION, asked, problem_of
from tests.service.conftest import PNG, Http, Player, picture
from tests.support.damaged_files import DAMAGES, NAMES

ETAG = f'"{hashlib.sha256(PNG).hexdigest()}"'
KEPT = "public, max-age=31536000, immutable"


@pytest.fixture
def path(served: Http, player: Player) -> str:
    """Where a picture is."""
    job_id = asked(served)
    player.succeed(job_id)
    return f"/v1/visualizations/{job_id}/images/0"


def test_the_picture_is_the_stored_bytes_under_a_strong_etag(served: Http, path: str) -> None:
    response = served.get(path)
    assert (response.content, response.headers["content-type"]) == (PNG, "image/png")
    assert (response.headers["etag"], response.headers["cache-control"]) == (ETAG, KEPT)
    assert (response.headers["vary"], response.headers["accept-ranges"]) == ("Accept", "bytes")
    known = served.get(path, headers={"If-None-Match": f'"other", {ETAG}'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", ETAG)
    assert known.headers["cache-control"] == KEPT


@pytest.mark.parametrize(
    ("suffix", "accept", "media_type"),
    [
        ("", "image/webp", "image/webp"),
        ("", "application/x-npy;q=0.9, text/html", "application/x-npy"),
        (".webp", "image/png", "image/webp"),
        (".npy", "*/*", "application/x-npy"),
        (".png", "text/html", "image/png"),
    ],
)
def test_other_forms_by_accept_or_suffix(
    served: Http, path: str, suffix: str, accept: str, media_type: str
) -> None:
    response = served.get(path + suffix, headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)
    assert ("vary" in response.headers) == (not suffix)
    tag = response.headers["etag"]
    assert (tag == ETAG) == (media_type == "image/png")
    known = served.get(path + suffix, headers={"Accept": accept, "If-None-Match": tag})
    assert (known.status_code, known.content) == (304, b"")
    assert served.get(path + suffix, headers={"Accept": accept}).content == response.content


def test_every_form_has_a_tag_of_its_own(served: Http, path: str) -> None:
    forms = [(suffix, width) for suffix in (".png", ".webp") for width in ("", "?width=32", "?width=64")]
    tags = [served.get(f"{path}{suffix}{width}").headers["etag"] for suffix, width in [*forms, (".npy", "")]]
    assert len(set(tags)) == 7
    assert not any(tag.startswith("W/") for tag in tags)


def test_a_form_that_there_is_not_is_refused_with_those_there_are(served: Http, path: str) -> None:
    response = served.get(path, headers={"Accept": "image/jpeg"})
    field_error = problem_of(response, 406, "not_acceptable")["errors"][0]
    assert field_error["choices"] == ["image/png", "image/webp", "application/x-npy"]
    assert (field_error["location"], field_error["value"]) == (["header", "accept"], "image/jpeg")
    assert response.headers["vary"] == "Accept"
    small = served.get(path, params={"width": 64}, headers={"Accept": "application/x-npy"})
    assert problem_of(small, 406, "not_acceptable")["errors"][0]["choices"] == ["image/png", "image/webp"]


@pytest.mark.parametrize(
    ("query", "location"), [("31", "width"), ("513", "width"), ("x", "width"), ("64.5", "width")]
)
def test_a_width_outside_its_bounds_is_refused(served: Http, path: str, query: str, location: str) -> None:
    found = problem_of(served.get(path, params={"width": query}), 422, "invalid_request")
    assert found["errors"][0]["location"] == ["query", location]


def test_an_array_is_not_made_smaller(served: Http, path: str) -> None:
    problem_of(served.get(f"{path}.npy", params={"width": 64}), 422, "invalid_request")


def test_a_thumbnail_is_as_wide_as_was_asked(served: Http, path: str) -> None:
    response = served.get(path, params={"width": 32}, headers={"Accept": "image/webp"})
    with Image.open(io.BytesIO(response.content)) as found:
        assert (found.format, found.size) == ("WEBP", (32, 32))


def test_a_head_says_what_a_get_would(served: Http, path: str) -> None:
    for suffix in ("", ".webp", ".npy"):
        there, said = served.get(path + suffix), served("HEAD", path + suffix)
        assert (said.status_code, said.content) == (200, b"")
        names = ("content-length", "content-type", "etag", "cache-control", "accept-ranges")
        assert [said.headers[name] for name in names] == [there.headers[name] for name in names]
    assert served("HEAD", path, headers={"If-None-Match": ETAG}).status_code == 304
    whole = served("HEAD", path, headers={"Range": "bytes=0-9"})
    assert (whole.status_code, whole.headers["content-length"]) == (200, str(len(PNG)))


@pytest.mark.parametrize("suffix", ["", ".webp", ".npy"])
def test_a_part_of_a_picture(served: Http, path: str, suffix: str) -> None:
    whole = served.get(path + suffix)
    size, tag = len(whole.content), whole.headers["etag"]
    part = served.get(path + suffix, headers={"Range": "bytes=10-19", "If-Range": tag})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert (part.headers["content-length"], part.headers["etag"]) == ("10", tag)
    changed = served.get(path + suffix, headers={"Range": "bytes=10-19", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, whole.content)
    rest = served.get(path + suffix, headers={"Range": f"bytes={size - 3}-"})
    assert rest.content == whole.content[-3:]


def test_a_part_beyond_the_end_says_where_that_is(served: Http, path: str) -> None:
    response = served.get(path, headers={"Range": f"bytes={len(PNG)}-"})
    problem_of(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(PNG)}"


def test_what_the_caller_has_is_not_sent_in_parts(served: Http, path: str) -> None:
    response = served.get(path, headers={"Range": "bytes=0-9", "If-None-Match": ETAG})
    assert response.status_code == 304


@pytest.mark.parametrize("query", ["", ".webp", ".npy", "?width=32"])
@pytest.mark.parametrize(
    "content", [*(damage(PNG) for damage in DAMAGES), picture("RGB")], ids=[*NAMES, "wrong"]
)
@pytest.mark.parametrize("remembered", [True, False])
def test_a_damaged_picture_is_as_good_as_gone(
    served: Http, path: str, player: Player, settings: Any, content: bytes, query: str, remembered: bool
) -> None:
    job_id = path.split("/")[3]
    file = settings.home / "artifacts" / job_id / "0.png"
    file.write_bytes(content)
    if not remembered:
        player.forget(job_id)
    response = served.get(path + query)
    assert "gone from the store" in problem_of(response, 404, "no_image")["detail"]
    assert "immutable" not in response.headers.get("cache-control", "")
    assert not file.exists()
    assert served("HEAD", path).status_code == 404
    again = served.ask(json=QUESTION)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, job_id, "queued")
    player.succeed(job_id)
    assert served.get(path).content == PNG


def test_a_picture_whose_record_is_damaged_is_as_good_as_gone(served: Http, path: str, settings: Any) -> None:
    record = settings.home / "artifacts" / path.split("/")[3] / "result.json"
    record.write_bytes(bytes(record.stat().st_size))
    problem_of(served.get(path), 404, "no_image")
    assert not record.exists()
    assert served.ask(json=QUESTION).json()["state"] == "queued"


def test_a_picture_that_is_not_there_says_why(served: Http, player: Player) -> None:
    job_id = asked(served)
    waiting = served.get(f"/v1/visualizations/{job_id}/images/0")
    assert "queued" in problem_of(waiting, 404, "image_not_ready")["detail"]
    assert waiting.headers["retry-after"]
    player.succeed(job_id)
    beyond = problem_of(served.get(f"/v1/visualizations/{job_id}/images/1"), 404, "no_image")
    assert (beyond["errors"][0]["value"], beyond["errors"][0]["maximum"]) == (1, 0)


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (".jpg", 406, "not_acceptable"),
        (".PNG", 406, "not_acceptable"),
        (".png.png", 406, "not_acceptable"),
        (".", 406, "not_acceptable"),
        ("x", 404, "no_image"),
        ("0000", 404, "no_image"),
    ],
)
def test_another_suffix_is_not_available_and_another_number_not_there(
    served: Http, path: str, end: str, status: int, code: str
) -> None:
    found = problem_of(served.get(path + end), status, code)
    if status == 406:
        assert found["errors"][0]["choices"] == [".png", ".webp", ".npy"]


def test_an_atlas_has_no_other_suffixes_either(served: Http) -> None:
    batch = served("POST", "/v1/batches", json={"model": "digits", "layer": "layer3", "units": [1]}).json()
    found = problem_of(served.get(batch["links"]["atlas"] + ".jpg"), 406, "not_acceptable")
    assert found["errors"][0]["choices"] == [".png", ".webp"]


@pytest.mark.parametrize("suffix", [".png", ".webp", ""])
def test_it_is_enlarged_by_repeating_pixels(served: Http, path: str, suffix: str) -> None:
    response = served.get(f"{path}{suffix}?scale=3")
    with Image.open(io.BytesIO(response.content)) as large, Image.open(io.BytesIO(PNG)) as own:
        expected = own.convert("RGB").resize((96, 96), Image.Resampling.NEAREST)
        assert large.convert("RGB").tobytes() == expected.tobytes()
    assert response.headers["etag"] not in (ETAG, served.get(f"{path}{suffix}?scale=2").headers["etag"])
    assert served.get(f"{path}{suffix}?scale=1").headers["etag"] == served.get(path + suffix).headers["etag"]


@pytest.mark.parametrize(
    ("query", "name"),
    [("scale=17", "scale"), ("scale=0", "scale"), ("scale=2.5", "scale"), ("scale=2&width=32", "scale")],
)
def test_no_scale_makes_it_larger_than_the_largest_image(
    served: Http, path: str, query: str, name: str
) -> None:
    found = problem_of(served.get(f"{path}?{query}"), 422, "invalid_request")
    assert found["errors"][0]["location"] == ["query", name]
    if query == "scale=17":
        assert found["errors"][0]["maximum"] == 16
        assert served.get(f"{path}?scale=16").status_code == 200


def test_numbers_have_no_scale(served: Http, path: str) -> None:
    found = problem_of(served.get(f"{path}.npy?scale=2"), 422, "invalid_request")
    assert found["detail"] == "NPY has no scale; valid with scale: .png, .webp"
    assert served.get(f"{path}?scale=2", headers={"Accept": "application/x-npy"}).status_code == 406
