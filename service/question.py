"""The body of a request as a `Spec`: its type, its size, its JSON, its fields, the operator's limits."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import ValidationError

from proxygrad.spec import ModelInfo, Spec
from service.flaws import flaws, summary
from service.problems import Flaw, Refusal
from service.settings import Settings

#: A question with every field at its longest is under 3 kB; 16 kB leaves room for added fields.
MAX_BODY_BYTES = 16 * 1024

EXAMPLES: dict[str, Any] = {
    "smallest": {
        "summary": "The question itself",
        "value": {"model": "digits", "layer": "layer3", "unit": 7},
    },
    "settings": {
        "summary": "With settings",
        "value": {"model": "digits", "layer": "layer3", "unit": 7, "slope": 0.05, "steps": 64, "seed": 1},
    },
    "plain": {
        "summary": "Plain activation maximization",
        "value": {"model": "digits", "layer": "layer3", "unit": 7, "slope": 0},
    },
}

#: The request body's entry in the OpenAPI document. The route reads the body itself, so that what is not
#: JSON, too large or of another type is told apart, and types are as strict as the schema says.
OPENAPI_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Spec"}, "examples": EXAMPLES}
        },
    }
}


async def question(request: Request) -> Spec:
    """Read the body; refuses with 400, 413, 415 or 422."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        said = f"not {content_type!r}" if content_type else "and none was given"
        flaw = Flaw(location=["header", "content-type"], detail="another type", value=content_type or None)
        flaw.choices = ["application/json"]
        raise Refusal(
            "unsupported_media_type", f"the content type must be 'application/json', {said}", [flaw]
        )
    return parse(await _body(request))


QuestionDep = Annotated[Spec, Depends(question)]


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refusal("body_too_large", f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def parse(body: bytes) -> Spec:
    """The question in `body`, types taken as JSON has them: no number in quotes, no `true` for 1."""
    try:
        return Spec.model_validate_json(body, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        if found[0]["type"] == "json_invalid":
            raise Refusal("invalid_json", f"the body is not JSON: {found[0]['ctx']['error']}") from error
        said = flaws(found, ["body"], Spec)
        raise Refusal("invalid_request", summary(said), said) from error


def within_limits(spec: Spec, model: ModelInfo, settings: Settings) -> None:
    """Hold the resolved `spec` against the operator's limits; refuses with the field at fault."""
    size_px = spec.size_px or max(model.input_shape[1:])
    _limit("steps", spec.steps, settings.max_steps, "PROXYGRAD_MAX_STEPS")
    _limit("size_px", size_px, settings.max_size_px, "PROXYGRAD_MAX_SIZE_PX")


def _limit(field: str, value: int, limit: int, variable: str) -> None:
    if value > limit:
        detail = f"{field} {value} is above this server's limit of {limit} (its operator's {variable})"
        flaw = Flaw(location=["body", field], detail=detail, value=value, maximum=limit)
        raise Refusal("limit_exceeded", detail, [flaw])
