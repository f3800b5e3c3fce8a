"""Forms with a document and a picture: whatever is wrong with one has one problem that names it."""

from __future__ import annotations

import json

import pytest

from tests.service.api.test_attributions import QUESTION, drawn
from tests.service.api.test_visualizations import problem_of
from tests.service.conftest import Http

DOCUMENT = json.dumps(QUESTION).encode()


def part(name: str, content: bytes, file: bool = False) -> bytes:
    filename = b'; filename="x"' if file else b""
    return (
        b'--b\r\nContent-Disposition: form-data; name="'
        + name.encode()
        + b'"'
        + filename
        + b"\r\n\r\n"
        + content
        + b"\r\n"
    )


PICTURE = part("image", drawn(), file=True)
ASKED = part("attribution", DOCUMENT)


@pytest.mark.parametrize(
    ("parts", "status", "code", "words"),
    [
        ([ASKED], 422, "invalid_request", "body.image: is missing"),
        ([PICTURE], 422, "invalid_request", "body.attribution: is missing"),
        ([ASKED, PICTURE, PICTURE], 422, "invalid_request", "body.image: is there twice"),
        ([ASKED, ASKED, PICTURE], 422, "invalid_request", "body.attribution: is there twice"),
        ([ASKED, PICTURE, part("more", b"1")], 422, "invalid_request", "more"),
        ([part("attribution", b"{"), PICTURE], 400, "invalid_json", ""),
        ([part("attribution", b""), PICTURE], 400, "invalid_json", ""),
        ([part("attribution", b"\xff"), PICTURE], 400, "invalid_json", ""),
        ([part("attribution", b"[" * 5000), PICTURE], 400, "json_too_deep", ""),
        ([part("attribution", b" " * 70_000), PICTURE], 400, "invalid_multipart", ""),
        ([part("attribution", b" " * 70_000, file=True), PICTURE], 413, "body_too_large", "attribution"),
    ],
)
def test_each_fault_of_a_form_is_one_problem(
    served: Http, parts: list[bytes], status: int, code: str, words: str
) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    body = b"".join(parts) + b"--b--\r\n"
    response = served("POST", "/v1/attributions", content=body, headers=headers)
    found = problem_of(response, status, code)
    assert words in found["detail"]
    assert served.get("/v1/attributions").json()["attributions"] == []


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded", "text/plain"])
def test_a_body_of_another_type_is_told_what_is_valid(served: Http, kind: str) -> None:
    response = served("POST", "/v1/attributions", content=drawn(), headers={"content-type": kind})
    found = problem_of(response, 415, "unsupported_media_type")
    assert "multipart/form-data" in json.dumps(found)


def test_the_type_that_a_part_claims_counts_for_nothing(served: Http) -> None:
    files = {"image": ("x.exe", drawn(), "application/x-msdownload")}
    response = served("POST", "/v1/attributions", files=files, data={"attribution": DOCUMENT.decode()})
    assert response.status_code == 202, response.text
