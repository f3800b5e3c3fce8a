"""The body of a request as a `VisualizationRequest`: its type, its size, its JSON, its fields, the operator's
limits.
"""

from __future__ import annotations

from typing import Any, TypeVar

import fastapi
from pydantic import BaseModel, ValidationError

from proxygrad.protocol.problems import FieldError
from proxygrad.protocol.requests import JobOptions, VisualizationRequest
from proxygrad.spec import ModelInfo, Spec
from service.middleware.limits import check_depth
from service.problems import ProblemError
from service.settings import Settings
from service.web.validation import flaws, summary
from service.webhooks.urls import AllowedHosts
from workers.jobs.repository import Submission
from workers.latest import Latest

Asked = TypeVar("Asked", bound=BaseModel)
Wished = TypeVar("Wished", bound=JobOptions)

#: Questions that are kept, and how long their text may be. One takes a few KB.
MOST_KEPT = 256
MAX_KEPT_BYTES = 2048

EXAMPLES: dict[str, Any] = {
    "smallest": {
        "summary": "The question itself",
        "value": {"model": "digits", "layer": "layer3", "unit": 7},
    },
    "settings": {
        "summary": "With settings",
        "value": {"model": "digits", "layer": "layer3", "unit": 7, "slope": 0.05, "steps": 64, "seed": 1},
    },
    "urgency": {
        "summary": "Of no use after two minutes, and after all interactive ones",
        "value": {"model": "digits", "layer": "layer3", "unit": 7, "priority": "batch", "deadline_s": 120},
    },
    "webhook": {
        "summary": "And tell a program of its own of the end",
        "value": {
            "model": "digits",
            "layer": "layer3",
            "unit": 7,
            "webhook": "https://hooks.example.org/proxygrad",
        },
    },
    "several": {
        "summary": "Four images that differ, and plain activation maximization beside them",
        "value": {
            "model": "digits",
            "layer": "layer3",
            "unit": 7,
            "images": 4,
            "diversity": 0.5,
            "compare": True,
        },
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
            "application/json": {
                "schema": {"$ref": "#/components/schemas/VisualizationRequest"},
                "examples": EXAMPLES,
            }
        },
    }
}


class RequestCache:
    """What was asked lately as it was understood: popular questions come again and again, as the same bytes.

    For one event loop.
    """

    def __init__(self) -> None:
        self._parsed: Latest[bytes, VisualizationRequest] = Latest(MOST_KEPT)
        self._submissions: Latest[tuple[int, str], tuple[VisualizationRequest, ModelInfo, Submission]] = (
            Latest(MOST_KEPT)
        )

    def parse(self, body: bytes) -> VisualizationRequest:
        """The question in ``body``; refuses with 400 or 422."""
        asked = self._parsed.get(body)
        if asked is None:
            asked = parsed(body, VisualizationRequest)
            if len(body) <= MAX_KEPT_BYTES:
                self._parsed.put(body, asked)
        return asked

    def submission(self, asked: VisualizationRequest, model: ModelInfo, caller: str) -> Submission:
        """What ``asked`` asks of ``model``. Raises what `Spec.resolve` raises."""
        key = id(asked), caller  # of what is kept itself, so that it is nobody else's meanwhile
        kept = self._submissions.get(key)
        if kept is None or kept[0] is not asked or kept[1] is not model:
            kept = asked, model, Submission.of(asked, model, caller, None)
            self._submissions.put(key, kept)
        return kept[2]


async def json_body(request: fastapi.Request) -> bytes:
    """The body of a request that says it is JSON; refuses with 413 or 415."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        said = f"not {content_type!r}" if content_type else "and none was given"
        flaw = FieldError(
            location=["header", "content-type"], detail="another type", value=content_type or None
        )
        flaw.choices = ["application/json"]
        raise ProblemError(
            "unsupported_media_type", f"the content type must be 'application/json', {said}", [flaw]
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        flaw = FieldError(
            location=["header", "content-encoding"], detail="another coding", value=coding[:200]
        )
        flaw.choices = ["identity"]
        raise ProblemError(
            "unsupported_media_type",
            f"the body must come as it is, without a Content-Encoding, not in {coding[:200]!r}",
            [flaw],
            headers={"Accept-Encoding": "identity"},  # RFC 9110 section 15.5.16
        )
    return await request.body()


def parsed(body: bytes, kind: type[Asked]) -> Asked:
    """What `body` asks, types taken as JSON has them: no number in quotes, no `true` for 1."""
    check_depth(body)
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        if found[0]["type"] == "json_invalid":
            raise ProblemError("invalid_json", f"the body is not JSON: {found[0]['ctx']['error']}") from error
        said = flaws(found, ["body"], kind)
        raise ProblemError("invalid_request", summary(said, len(found)), said) from error


def tellable(asked: Wished, receivers: AllowedHosts) -> Wished:
    """What is asked, with the URL that is told in its plain form; refuses with `webhook_refused`."""
    if asked.webhook is None:
        return asked
    return asked.model_copy(update={"webhook": receivers.check(asked.webhook)})


def within_limits(spec: Spec, model: ModelInfo, settings: Settings) -> None:
    """Hold the resolved `spec` against the operator's limits; refuses with the field at fault."""
    size_px = spec.size_px or max(model.input_shape[1:])
    _limit("steps", spec.steps, settings.max_steps, "PROXYGRAD_MAX_STEPS")
    _limit("size_px", size_px, settings.max_size_px, "PROXYGRAD_MAX_SIZE_PX")
    cost = spec.cost(model)
    if cost > settings.max_cost:
        counted = f" × {spec.lanes} images" if spec.lanes > 1 else ""
        detail = (
            f"the request costs {cost:.6g} megapixel steps (steps × height × width{counted} / 10⁶), and this "
            f"server's limit is {settings.max_cost:g} (its operator's PROXYGRAD_MAX_COST); use fewer steps, "
            f"pixels{' or images, or no comparison' if spec.compare else ' or images' if counted else ''}"
        )
        flaw = FieldError(
            location=["body"], detail="costs too much", value=round(cost, 6), maximum=settings.max_cost
        )
        raise ProblemError("cost_too_high", detail, [flaw])


def _limit(field: str, value: int, limit: int, variable: str) -> None:
    if value > limit:
        detail = f"{field} {value} is above this server's limit of {limit} (its operator's {variable})"
        flaw = FieldError(location=["body", field], detail=detail, value=value, maximum=limit)
        raise ProblemError("limit_exceeded", detail, [flaw])
