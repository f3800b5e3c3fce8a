"""Bodies of ``multipart/form-data``: one JSON document and one file, each at most once."""

from __future__ import annotations

import fastapi
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException

from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError
from service.web.json_body import check_coding
from service.web.validation import shortened, unknown_name

MEDIA_TYPE = "multipart/form-data"


def is_multipart(headers: Headers) -> bool:
    """Whether the body is a form with parts."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


async def parts(request: fastapi.Request, document: str, file: str, max_bytes: int) -> tuple[bytes, bytes]:
    """The parts of those names, each of which has to be there once; ``file`` with a file name.

    ``max_bytes``: of the whole body, which has been limited to that. Raises `ProblemError` with
    `unsupported_media_type`; with `invalid_multipart`; or with `invalid_request` for a part that is missing,
    unknown, there twice, or no file.
    """
    check_coding(request.headers)
    _check_charset(request.headers)
    names = (document, file)
    found: dict[str, bytes] = {}
    try:
        async with request.form(max_files=len(names), max_fields=len(names), max_part_size=max_bytes) as form:
            for name, value in form.multi_items():
                if name not in names:
                    raise _refused(name, unknown_name("part", shortened(name), names)[0])
                if name in found:
                    raise _refused(name, "is there twice")
                if isinstance(value, UploadFile):
                    found[name] = await value.read()
                elif name == file:
                    raise _refused(
                        name, "is a text; valid: a file, with a filename in its Content-Disposition"
                    )
                else:
                    found[name] = value.encode()
    except HTTPException as error:
        raise ProblemError("invalid_multipart", f"the form cannot be read: {error.detail}") from error
    for name in names:
        if name not in found:
            raise _refused(name, f"is missing; valid: parts {' and '.join(map(repr, names))}")
    return found[document], found[file]


def _check_charset(headers: Headers) -> None:
    """UTF-8, as of all JSON. Names of codecs would reach Python's own, some of which raise or never end."""
    charset = parse_options_header(headers.get("content-type"))[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):
        given = shortened(charset.decode("latin-1"))
        field_error = FieldError(location=["header", "content-type"], detail="another charset", value=given)
        field_error.choices = ["utf-8"]
        detail = f"the charset of a form must be 'utf-8' or left out, not {given!r}"
        raise ProblemError("unsupported_media_type", detail, [field_error])


def _refused(name: str, detail: str) -> ProblemError:
    where = shortened(name)
    field_error = FieldError(location=["body", where], detail=detail)
    return ProblemError("invalid_request", f"body.{where}: {detail}", [field_error])
