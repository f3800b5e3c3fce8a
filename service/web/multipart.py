"""Bodies of ``multipart/form-data``: one JSON document and one file, each at most once."""

from __future__ import annotations

from collections.abc import Sequence

import fastapi
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException

from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError
from service.web.validation import shortened, unknown_name

MEDIA_TYPE = "multipart/form-data"


def is_multipart(headers: Headers) -> bool:
    """Whether the body is a form with parts."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


async def parts(request: fastapi.Request, names: Sequence[str], max_part_bytes: int) -> dict[str, bytes]:
    """The parts of a form, each of ``names`` once; what is no file has at most ``max_part_bytes``.

    Raises `ProblemError` with `invalid_multipart`, or `invalid_request` for a part that is missing, unknown
    or there twice.
    """
    found: dict[str, bytes] = {}
    try:
        async with request.form(
            max_files=len(names), max_fields=len(names), max_part_size=max_part_bytes
        ) as form:
            for name, value in form.multi_items():
                if name not in names:
                    raise _refused(name, unknown_name("part", shortened(name), names)[0])
                if name in found:
                    raise _refused(name, "is there twice")
                found[name] = await value.read() if isinstance(value, UploadFile) else value.encode()
    except HTTPException as error:
        if isinstance(error.__cause__, ProblemError):
            raise error.__cause__ from None
        raise ProblemError("invalid_multipart", f"the form cannot be read: {error.detail}") from error
    for name in names:
        if name not in found:
            raise _refused(name, f"is missing; valid: parts {' and '.join(map(repr, names))}")
    return found


def _refused(name: str, detail: str) -> ProblemError:
    where = shortened(name)
    field_error = FieldError(location=["body", where], detail=detail)
    return ProblemError("invalid_request", f"body.{where}: {detail}", [field_error])
