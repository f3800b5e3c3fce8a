"""`/v1/visualizations`: ask, follow, and fetch the picture."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from proxygrad.errors import BadRequest
from proxygrad.spec import Spec
from service.answers import Visualization, visualization
from service.gateway import Gateway, GatewayDep
from service.problems import Flaw, Refusal, documented
from service.question import OPENAPI_BODY, QuestionDep, within_limits
from service.translation import refusal_of
from workers.jobs import Job

router = APIRouter(prefix="/v1/visualizations", tags=["visualizations"])

#: Longest wait inside one request, in seconds: below the 60 s after which common proxies give up.
MAX_WAIT_S = 60
#: Seconds after which a caller should look again: a small network answers in about one.
RETRY_AFTER_S = 1

JobId = Annotated[
    str,
    Path(
        pattern="^[0-9a-f]{32}$", description="32 hex digits.", examples=["5f0c6a4b7d8e9f00112233445566778a"]
    ),
]
Wait = Annotated[
    float,
    Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end; answers earlier when it comes."),
]

_LINK = {"description": "Path of the visualization.", "schema": {"type": "string"}}
_RETRY = {"description": "Seconds after which to look again.", "schema": {"type": "integer"}}
_APPLIED = {"description": "The wait that was honoured (RFC 7240).", "schema": {"type": "string"}}
_POST_HEADERS = {"Location": _LINK, "Preference-Applied": _APPLIED}
_POST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Answered already, or within the wait.",
        "model": Visualization,
        "headers": _POST_HEADERS,
    },
    202: {
        "description": "Accepted; look again at `Location`.",
        "headers": {**_POST_HEADERS, "Retry-After": _RETRY},
    },
    **documented(
        *("invalid_json", "unknown_model", "unknown_layer", "body_too_large", "unsupported_media_type"),
        *("invalid_request", "unit_out_of_range", "position_out_of_range", "objective_mismatch"),
        *("size_unsupported", "limit_exceeded", "model_unavailable", "no_worker", "redis_unavailable"),
        "storage_unavailable",
    ),
}
_READ_RESPONSES = documented(
    "unknown_visualization", "invalid_request", "redis_unavailable", "storage_unavailable"
)
_IMAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture. Its ETag is the SHA-256 of its bytes.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {name: {"schema": {"type": "string"}} for name in ("ETag", "Cache-Control")},
    },
    304: {"description": "The caller has it already (`If-None-Match`)."},
    **documented(
        *("unknown_visualization", "image_not_ready", "no_image", "invalid_request"),
        *("redis_unavailable", "storage_unavailable"),
    ),
}


@router.post(
    "",
    summary="Ask what a unit responds to",
    status_code=202,
    response_model=Visualization,
    responses=_POST_RESPONSES,
    openapi_extra=OPENAPI_BODY,
)
async def create_visualization(
    spec: QuestionDep,
    gateway: GatewayDep,
    request: Request,
    response: Response,
    prefer: Annotated[
        str | None, Header(description="`wait=N`: seconds to wait for the end, up to 60.")
    ] = None,
) -> Visualization:
    """Safe to repeat: the same question has the same id and is computed once.

    A question that was answered before is answered at once with 200. A failed one is tried again.
    """
    job = await _submit(spec, gateway)
    wait_s = preferred_wait_s(prefer)
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        job = await gateway.ended(job.id, wait_s, request) if not job.ended else job
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    response.status_code = 200 if job.ended else 202
    return await _answer(job, gateway, response)


@router.get("/{job_id}", summary="Where it stands, and the answer", responses=_READ_RESPONSES)
async def read_visualization(
    job_id: JobId, gateway: GatewayDep, request: Request, response: Response, wait: Wait = 0
) -> Visualization:
    """State, progress and result; with `wait`, answers when the job ends or the time is over."""
    return await _answer(await gateway.ended(job_id, wait, request), gateway, response)


@router.get(
    "/{job_id}/images/{number}",
    summary="A picture",
    response_class=Response,
    responses=_IMAGE_RESPONSES,
)
async def read_image(
    job_id: JobId,
    number: Annotated[int, Path(ge=0, description="Counted from 0.", examples=[0])],
    gateway: GatewayDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The PNG. It never changes, so it may be kept for good."""
    png = await gateway.image(job_id, number)
    if png is None:
        raise _no_image(await gateway.job(job_id), number)
    etag = f'"{hashlib.sha256(png).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "public, max-age=31536000, immutable"}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(png, media_type="image/png", headers=headers)


async def _submit(spec: Spec, gateway: Gateway) -> Job:
    try:
        model = await gateway.model(spec.model)
        complete = spec.resolve(model)
        within_limits(complete, model, gateway.settings)
        job, _ = await gateway.call(gateway.jobs.submit, complete, model)
    except BadRequest as error:
        raise refusal_of(error, "body", spec.model_dump(mode="json")) from error
    return job


async def _answer(job: Job, gateway: Gateway, response: Response) -> Visualization:
    position = None
    if job.state == "queued":
        # None for one that a worker takes at this moment: nothing is ahead of it.
        position = await gateway.call(gateway.jobs.queue_position, job.id) or 0
    response.headers["Cache-Control"] = "no-store"
    if not job.ended:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return visualization(job, position, router.prefix, time.time())


def _no_image(job: Job, number: int) -> Refusal:
    if not job.ended:
        return Refusal(
            "image_not_ready", f"visualization {job.id} is {job.state}: {job.step} of {job.steps} steps"
        )
    if number < len(job.images):
        return Refusal(
            "no_image", f"image {number} of {job.id} is gone from the store; submit the question again"
        )
    if job.state == "succeeded":
        flaw = Flaw(location=["path", "number"], detail="no such image", value=number, minimum=0)
        flaw.maximum = len(job.images) - 1
        return Refusal("no_image", f"there is no image {number}; valid: 0 to {flaw.maximum}", [flaw])
    reason = f": {job.problem.detail}" if job.problem else ""
    return Refusal("no_image", f"visualization {job.id} {job.state}, so it has no image{reason}")


def preferred_wait_s(prefer: str | None) -> int | None:
    """The `wait` of a `Prefer` header (RFC 7240), at most `MAX_WAIT_S`; `None` when it has none."""
    for preference in (prefer or "").split(","):
        found = re.fullmatch(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*(;.*)?', preference, re.IGNORECASE)
        if found:
            return min(int(found[1]), MAX_WAIT_S)
    return None


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names `etag` (RFC 9110: weak comparison, or `*`)."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or "*" in tags
