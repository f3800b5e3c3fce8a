"""The body of a request for an attribution: JSON, or a form with the document and pictures."""

from __future__ import annotations

from typing import Any, cast

from fastapi import Request

from proxygrad.protocol.attributions import AttributionRequest
from proxygrad.spec.attribution import MAX_LISTED, MAX_REFERENCES
from service.backend.resources.attributions import RESOURCE, Uploads
from service.backend.resources.session import JobSession
from service.problems import ProblemError
from service.web.json_body import json_body
from service.web.multipart import MEDIA_TYPE, is_multipart, parts, refused

DOCUMENT, PICTURE, REFERENCE = "attribution", "image", "reference"

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
                    "required": [DOCUMENT],
                    "properties": {
                        DOCUMENT: _SCHEMA,
                        PICTURE: {
                            "type": "string",
                            "format": "binary",
                            "description": "The picture: PNG, JPEG, WebP or NPY. Left out where the document "
                            "names an image of a visualization.",
                        },
                        REFERENCE: {
                            "type": "array",
                            "maxItems": MAX_LISTED,
                            "items": {"type": "string", "format": "binary"},
                            "description": "Pictures to compare with, brought to the size of the "
                            "picture. NPY may be a stack (k, channels, rows, columns). At most "
                            f"{MAX_REFERENCES} in all.",
                        },
                    },
                },
                "encoding": {DOCUMENT: {"contentType": "application/json"}},
            },
        },
    }
}


async def read_body(session: JobSession, request: Request) -> tuple[AttributionRequest, Uploads]:
    """The request, and the pictures that came with it. Raises `ProblemError`."""
    backend, settings = session.backend, session.backend.settings
    if not is_multipart(request.headers):
        document = await json_body(request, [MEDIA_TYPE])
        parsed = cast(AttributionRequest, backend.requests.parse(RESOURCE, document))
        uploads = Uploads(None)
    else:
        document, files = await parts(
            request,
            DOCUMENT,
            {PICTURE: 1, REFERENCE: MAX_LISTED},
            max(settings.max_upload_bytes, settings.max_body_bytes),
        )
        if len(document) > settings.max_body_bytes:
            detail = f"is larger than {settings.max_body_bytes} bytes (PROXYGRAD_MAX_BODY_BYTES)"
            raise ProblemError("body_too_large", f"the part {DOCUMENT!r} {detail}")
        parsed = cast(AttributionRequest, backend.requests.parse(RESOURCE, document))
        uploads = Uploads(next(iter(files[PICTURE]), None), tuple(files[REFERENCE]))
    _check_pictures(parsed, uploads)
    return parsed, uploads


def _check_pictures(request: AttributionRequest, uploads: Uploads) -> None:
    """Whether the document names what came with it."""
    if request.image is None and uploads.image is None:
        raise refused(
            PICTURE,
            "is missing; valid: an image of a visualization, or multipart/form-data with a part "
            f"{PICTURE!r} and this document as the part {DOCUMENT!r}",
        )
    if request.image is not None and uploads.image is not None:
        raise refused(
            PICTURE, f"names an image of a visualization beside the part {PICTURE!r}; valid: one of them"
        )
    named = "uploaded" in request.listed
    if named and not uploads.references:
        raise refused(REFERENCE, f"names 'uploaded', and the form has no part {REFERENCE!r}")
    if uploads.references and not named and "reference" in request.model_fields_set:
        raise refused(
            REFERENCE,
            f"has no 'uploaded' for the parts {REFERENCE!r}; valid: a list with it, or none for them alone",
        )
