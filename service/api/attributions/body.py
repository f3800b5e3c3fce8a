"""The body of a request for an attribution: JSON, or a form with the document and the picture."""

from __future__ import annotations

from typing import Any, cast

from fastapi import Request

from proxygrad.protocol.attributions import AttributionRequest
from proxygrad.protocol.problems import FieldError
from service.backend.resources.attributions import RESOURCE
from service.backend.resources.session import JobSession
from service.problems import ProblemError
from service.web.json_body import json_body
from service.web.multipart import MEDIA_TYPE, is_multipart, parts

DOCUMENT, PICTURE = "attribution", "image"

_SMALLEST = {"model": "digits", "layer": "fc", "unit": 7}
_SCHEMA = {"$ref": f"#/components/schemas/{AttributionRequest.__name__}"}
_EXAMPLE_ID = "5f0c6a4b7d8e9f00112233445566778a"
#: The entry of the OpenAPI operation.
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _SCHEMA,
                "examples": {
                    "visualization": {
                        "summary": "An image of a visualization",
                        "value": {**_SMALLEST, "image": {"visualization": _EXAMPLE_ID}},
                    }
                },
            },
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": [DOCUMENT, PICTURE],
                    "properties": {
                        DOCUMENT: _SCHEMA,
                        PICTURE: {
                            "type": "string",
                            "format": "binary",
                            "description": "The picture: PNG, JPEG, WebP or NPY.",
                        },
                    },
                },
                "encoding": {DOCUMENT: {"contentType": "application/json"}},
            },
        },
    }
}


async def read_body(session: JobSession, request: Request) -> tuple[AttributionRequest, bytes | None]:
    """The request, and the bytes of the picture where it brings one. Raises `ProblemError`."""
    backend, settings = session.backend, session.backend.settings
    if not is_multipart(request.headers):
        document = await json_body(request, [MEDIA_TYPE])
        return cast(AttributionRequest, backend.requests.parse(RESOURCE, document)), None
    document, picture = await parts(
        request, DOCUMENT, PICTURE, max(settings.max_upload_bytes, settings.max_body_bytes)
    )
    if len(document) > settings.max_body_bytes:
        limit = settings.max_body_bytes
        raise ProblemError(
            "body_too_large", f"the part {DOCUMENT!r} is larger than {limit} bytes (PROXYGRAD_MAX_BODY_BYTES)"
        )
    parsed = cast(AttributionRequest, backend.requests.parse(RESOURCE, document))
    if parsed.image is not None:
        detail = "names an image of a visualization beside the part 'image'; valid: one of them"
        field_error = FieldError(location=["body", "image"], detail=detail)
        raise ProblemError("invalid_request", f"body.image: {detail}", [field_error])
    return parsed, picture
