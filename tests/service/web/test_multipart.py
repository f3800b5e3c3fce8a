"""Forms: one document and one file. Whatever else is sent, one problem says what is wrong, soon."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.service.api.test_attributions import QUESTION, drawn
from tests.service.api.test_visualizations import problem_of
from tests.service.conftest import Http

DOCUMENT = json.dumps(QUESTION).encode()
FORM = "multipart/form-data; boundary=x"
#: As the default of PROXYGRAD_MAX_UPLOAD_BYTES allows, less what is around.
ROOM = 8 * 2**20 - 1000


def named(name: bytes, *more: bytes) -> bytes:
    return b"; ".join([b'Content-Disposition: form-data; name="' + name + b'"', *more])


ASKED = (named(b"attribution"), DOCUMENT)
FILE = named(b"image", b'filename="a.png"')
PICTURE = (FILE, drawn())
REFERENCE = named(b"reference", b'filename="r.png"')


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"x") -> bytes:
    """A body with parts of header and content."""
    begun = [
        b"--" + boundary + b"\r\n" + header + b"\r\n\r\n" + content + b"\r\n" for header, content in parts
    ]
    return b"".join(begun) + b"--" + boundary + b"--\r\n"


def sent(http: Http, body: bytes, content_type: str = FORM, **headers: str) -> Any:
    return http("POST", "/v1/attributions", content=body, headers={"content-type": content_type, **headers})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(ASKED, PICTURE), FORM),
        (form(PICTURE, ASKED), FORM),
        (form(ASKED, PICTURE), 'MULTIPART/Form-Data;boundary="x"'),
        (form(ASKED, PICTURE), f"{FORM}; charset=UTF-8"),
        (
            form((ASKED[0] + b'; filename="d.json"\r\nContent-Type: application/json', DOCUMENT), PICTURE),
            FORM,
        ),
        (form(ASKED, (FILE + b"\r\nContent-Type: text/plain", drawn())), FORM),
        (form(ASKED, (named(b"image", b'filename=""'), drawn())), FORM),
        (b"\r\n" + form(ASKED, PICTURE) + b"more", FORM),
    ],
)
def test_a_form_is_read_however_it_is_written(served: Http, body: bytes, content_type: str) -> None:
    response = sent(served, body, content_type)
    assert response.status_code == 202, response.text


@pytest.mark.parametrize(
    ("parts", "place", "said"),
    [
        ([ASKED], "image", "is missing; valid: an image of a visualization, or multipart/form-data with"),
        ([PICTURE], "attribution", "is missing; valid: parts 'attribution', 'image', 'reference'"),
        ([ASKED, PICTURE, *[(REFERENCE, drawn())] * 17], "reference", "is there more than 16 times"),
        ([ASKED, PICTURE, (named(b"reference"), b"zeros")], "reference", "is a text; valid: a file"),
        ([], "attribution", "is missing"),
        ([ASKED, ASKED], "attribution", "is there twice"),
        ([ASKED, PICTURE, PICTURE], "image", "is there twice"),
        ([ASKED, (named(b"imagee", b'filename="a"'), b"1")], "imagee", "near names: image"),
        ([ASKED, (named(b"\xff\xfe"), b"1"), PICTURE], "\xff\xfe", "unknown part; valid: attribution, image"),
        ([ASKED, (named(b"n" * 2000), b"1"), PICTURE], None, "unknown part"),
        ([ASKED, (named(b"image"), drawn())], "image", "is a text; valid: a file, with a filename"),
        ([(named(b"attribution"), b"[1]"), PICTURE], None, "should be an object"),
        ([(named(b"attribution"), b'{"model": "digits"}'), PICTURE], "layer", "required"),
    ],
)
def test_a_part_that_is_missing_unknown_twice_or_no_file_is_named(
    served: Http, parts: list[tuple[bytes, bytes]], place: str | None, said: str
) -> None:
    found = problem_of(sent(served, form(*parts)), 422, "invalid_request")
    assert said in found["detail"]
    assert place is None or found["errors"][0]["location"] == ["body", place]
    assert len(json.dumps(found)) < 3000


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"", "invalid_request", 422),
        (b"nonsense", "invalid_multipart", 400),
        (b"--x\r\nnonsense", "invalid_request", 422),
        (form(ASKED, PICTURE)[:100], "invalid_request", 422),
        (form(ASKED, PICTURE, boundary=b"y"), "invalid_multipart", 400),
        (form((b"Content-Disposition: form-data", DOCUMENT), PICTURE), "invalid_multipart", 400),
        (form((b"X: y", DOCUMENT), PICTURE), "invalid_multipart", 400),
        (form(ASKED, PICTURE, *[PICTURE] * 20), "invalid_multipart", 400),
        (form((ASKED[0], b"{"), PICTURE), "invalid_json", 400),
        (form((ASKED[0], b"\xff\xfe"), PICTURE), "invalid_json", 400),
        (form((ASKED[0], b"[" * 40), PICTURE), "json_too_deep", 400),
        (form((ASKED[0], b" " * 70_000 + DOCUMENT), PICTURE), "body_too_large", 413),
        (form((named(b"attribution", b'filename="d"'), b" " * 70_000), PICTURE), "body_too_large", 413),
    ],
)
def test_a_form_or_a_document_that_cannot_be_read_has_its_problem(
    served: Http, body: bytes, code: str, status: int
) -> None:
    problem_of(sent(served, body), status, code)


@pytest.mark.parametrize(
    "charset",
    [
        *("undefined", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "utf-7", "utf-16", "zlib"),
        *("latin-1", "utf-8\0", "none", "x" * 3000),
    ],
)
def test_another_charset_than_that_of_json_is_refused(served: Http, charset: str) -> None:
    """Python's codecs of those names raised what nobody caught, or made texts that are no Unicode."""
    name = named(b"\\ud800")
    found = problem_of(
        sent(served, form((name, DOCUMENT), PICTURE), f"{FORM}; charset={charset}"),
        415,
        "unsupported_media_type",
    )
    assert found["errors"][0]["choices"] == ["utf-8"]
    assert len(json.dumps(found)) < 2000


def test_a_compressed_form_is_refused(served: Http) -> None:
    response = sent(served, form(ASKED, PICTURE), **{"content-encoding": "gzip"})
    assert "no Content-Encoding, not 'gzip'" in problem_of(response, 415, "unsupported_media_type")["detail"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "image/png", "multipart/mixed; boundary=x", "x" * 5000]
)
def test_both_types_are_named_where_it_is_another(served: Http, content_type: str) -> None:
    found = problem_of(sent(served, form(ASKED, PICTURE), content_type), 415, "unsupported_media_type")
    assert "'application/json' or 'multipart/form-data'" in found["detail"]
    assert found["errors"][0]["choices"] == ["application/json", "multipart/form-data"]
    assert len(json.dumps(found)) < 1500


def test_elsewhere_a_form_is_another_type(served: Http) -> None:
    response = served(
        "POST", "/v1/visualizations", content=form(ASKED, PICTURE), headers={"content-type": FORM}
    )
    found = problem_of(response, 415, "unsupported_media_type")
    assert found["errors"][0]["choices"] == ["application/json"]


@pytest.mark.parametrize(
    "body",
    [
        form(ASKED, (FILE, b"\r" * ROOM)),
        form(ASKED, (FILE, b"\r\n--" * (ROOM // 4))),
        form(ASKED, PICTURE) + b"\r\n" * (ROOM // 2),
        b"\r\n" * (ROOM // 2) + form(ASKED, PICTURE),
        form((ASKED[0] + b"\r\nX: " + b"y" * ROOM, DOCUMENT)),
        form((ASKED[0] + b"\r\nX: y" * (ROOM // 6), DOCUMENT)),
        form((ASKED[0] + b"; x=y" * (ROOM // 5), DOCUMENT)),
        form((ASKED[0] + b'; x="\\""' * (ROOM // 7), DOCUMENT)),
        form(*[(named(b"x"), b"")] * (ROOM // 50)),
    ],
    ids=["returns", "near ends", "behind", "before", "a header", "headers", "values", "quotes", "parts"],
)
def test_no_form_takes_long(served: Http, body: bytes) -> None:
    """The largest that may be sent: 0.1 s. With python-multipart before 0.0.27 headers took 13 s."""
    begun_s = time.process_time()
    assert sent(served, body).status_code < 500
    assert time.process_time() - begun_s < 1
