"""JSON request bodies: content type, nesting depth, and validation by a pydantic model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import fastapi
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers

from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError
from service.web.validation import invalid_request

Model = TypeVar("Model", bound=BaseModel)

MEDIA_TYPE = "application/json"
#: The deepest document of this interface has 6 levels.
MAX_DEPTH = 32

#: A JSON string, or one bracket. Possessive, so that it takes time in proportion to the text, whatever it is.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\(?:.|\Z))*+"?|[\[\]{}]', re.DOTALL)


async def json_body(request: fastapi.Request, others: Sequence[str] = ()) -> bytes:
    """The body of a request with the content type JSON. ``others``: types that the operation takes too.

    Raises `ProblemError` with 413 or 415.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != MEDIA_TYPE:
        given = f"not {content_type[:200]!r}" if content_type else "and none was given"
        choices = [MEDIA_TYPE, *others]
        field_error = FieldError(
            location=["header", "content-type"], detail="another type", value=content_type[:200] or None
        )
        field_error.choices = list(choices)
        detail = f"the content type must be {' or '.join(map(repr, choices))}, {given}"
        raise ProblemError("unsupported_media_type", detail, [field_error])
    check_coding(request.headers)
    return await request.body()


def check_coding(headers: Headers) -> None:
    """Refuse a body that is compressed, with `unsupported_media_type`."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        field_error = FieldError(
            location=["header", "content-encoding"], detail="another coding", value=coding[:200]
        )
        field_error.choices = ["identity"]
        raise ProblemError(
            "unsupported_media_type",
            f"the body must have no Content-Encoding, not {coding[:200]!r}",
            [field_error],
            headers={"Accept-Encoding": "identity"},  # RFC 9110 section 15.5.16
        )


def parsed(body: bytes, model: type[Model], maxima: Mapping[str, float] | None = None) -> Model:
    """The body as a ``model``, with strict JSON types: no number in quotes, no `true` for 1.

    ``maxima``: the operator's own limits of fields, which errors name instead of those of the model. Raises
    `ProblemError` with `json_too_deep`, `invalid_json` or `invalid_request`.
    """
    check_depth(body)
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        if errors[0]["type"] == "json_invalid":
            raise ProblemError(
                "invalid_json", f"the body is not JSON: {errors[0]['ctx']['error']}"
            ) from error
        raise invalid_request(errors, ["body"], model, maxima) from error


def check_depth(body: bytes) -> None:
    """Refuse JSON nested deeper than `MAX_DEPTH` with `json_too_deep`, before anything recursive reads it."""
    depth = 0
    for match in _TOKENS.finditer(body):
        token = match[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise ProblemError("json_too_deep", f"the body is nested deeper than {MAX_DEPTH} levels")
        elif token in (b"]", b"}"):
            depth -= 1
