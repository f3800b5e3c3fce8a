"""Bodies of ``multipart/form-data``: one JSON document, and files."""

from __future__ import annotations

from collections.abc import Mapping

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


async def parts(
    request: fastapi.Request, document: str, files: Mapping[str, int], max_bytes: int
) -> tuple[bytes, dict[str, list[bytes]]]:
    """The part ``document``, which has to be there once, and those of ``files``, by name.

    ``files``: how often each may be there; all with a file name. ``max_bytes``: of the whole body, which has
    been limited to that. Raises `ProblemError` with `unsupported_media_type`; with `invalid_multipart`; or
    with `invalid_request` for a part that is missing, unknown, there too often, or no file.
    """
    check_coding(request.headers)
    _check_charset(request.headers)
    most = {document: 1, **files}
    found: dict[str, list[bytes]] = {name: [] for name in most}
    number = sum(most.values())
    try:
        async with request.form(max_files=number, max_fields=number, max_part_size=max_bytes) as form:
            for name, value in form.multi_items():
                if name not in most:
                    raise refused(name, unknown_name("part", shortened(name), tuple(most))[0])
                if len(found[name]) == most[name]:
                    often = "twice" if most[name] == 1 else f"more than {most[name]} times"
                    raise refused(name, f"is there {often}")
                if isinstance(value, UploadFile):
                    found[name].append(await value.read())
                elif name in files:
                    raise refused(
                        name, "is a text; valid: a file, with a filename in its Content-Disposition"
                    )
                else:
                    found[name].append(value.encode())
    except HTTPException as error:
        raise ProblemError("invalid_multipart", f"the form cannot be read: {error.detail}") from error
    if not found[document]:
        raise refused(document, f"is missing; valid: parts {', '.join(map(repr, most))}")
    return found.pop(document)[0], found


def _check_charset(headers: Headers) -> None:
    """UTF-8, as of all JSON. Names of codecs would reach Python's own, some of which raise or never end."""
    charset = parse_options_header(headers.get("content-type"))[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):
        given = shortened(charset.decode("latin-1"))
        field_error = FieldError(location=["header", "content-type"], detail="another charset", value=given)
        field_error.choices = ["utf-8"]
        detail = f"the charset of a form must be 'utf-8' or left out, not {given!r}"
        raise ProblemError("unsupported_media_type", detail, [field_error])


def refused(name: str, detail: str) -> ProblemError:
    """What is wrong with a part."""
    where = shortened(name)
    field_error = FieldError(location=["body", where], detail=detail)
    return ProblemError("invalid_request", f"body.{where}: {detail}", [field_error])
