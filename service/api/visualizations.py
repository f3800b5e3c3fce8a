"""`/v1/visualizations`: ask, and follow."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from proxygrad.errors import InvalidRequest
from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.requests import VisualizationRequest as AskedFor
from proxygrad.protocol.visualizations import Visualization
from service.api.ids import PathId
from service.backend.documents import visualization
from service.backend.gateway import Gateway, GatewayDep
from service.backend.idempotency import PARAMETER as IDEMPOTENCY_KEY
from service.backend.idempotency import key_of
from service.backend.long_polling import (
    PREFER,
    PREFERENCE_APPLIED,
    RETRY_AFTER,
    RETRY_AFTER_S,
    Wait,
    preferred_wait_s,
)
from service.problems import problem_responses
from service.web.exception_handlers import refusal_of
from service.web.json_body import OPENAPI_BODY, json_body, tellable, within_limits
from workers.fleet import catalog
from workers.jobs.repository import Job

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

JobId = PathId

_LINK = {"description": "Path of the visualization.", "schema": {"type": "string"}}
_POST_HEADERS = {"Location": _LINK, "Preference-Applied": PREFERENCE_APPLIED}
_POST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Answered already, or within the wait.",
        "model": Visualization,
        "headers": _POST_HEADERS,
    },
    202: {
        "description": "Accepted; look again at `Location`.",
        "headers": {**_POST_HEADERS, "Retry-After": RETRY_AFTER},
    },
    **problem_responses(
        *("invalid_json", "unknown_model", "unknown_layer", "body_too_large", "unsupported_media_type"),
        *("invalid_request", "unit_out_of_range", "position_out_of_range", "objective_mismatch"),
        *("limit_exceeded", "model_unavailable", "no_worker", "redis_unavailable"),
        *("queue_full", "caller_queue_full", "queue_memory_full", "storage_unavailable"),
        *("webhook_refused", "too_many_webhooks"),
        *("too_many_in_flight", "json_too_deep", "cost_too_high", "idempotency_key_reused"),
    ),
}
_READ_RESPONSES = problem_responses(
    "unknown_visualization", "invalid_request", "redis_unavailable", "storage_unavailable"
)


@router.post(
    "",
    summary="Ask what a unit responds to",
    status_code=202,
    response_model=Visualization,
    responses=_POST_RESPONSES,
    openapi_extra={**OPENAPI_BODY, "parameters": [PREFER, IDEMPOTENCY_KEY]},
)
async def create_visualization(gateway: GatewayDep, request: Request) -> Response:
    """Safe to repeat: the same question has the same id and is computed once.

    A question that was answered before is answered at once with 200. A failed one is tried again.
    """
    asked = tellable(gateway.questions.parse(await json_body(request)), gateway.receivers)
    job = await _submitted_once(asked, gateway, key_of(request))
    headers = {}
    wait_s = preferred_wait_s(request.headers.get("prefer"))
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s}"
        job = await gateway.ended(job.id, wait_s, request) if not job.ended else job
    headers["Location"] = f"{router.prefix}/{job.id}"
    return await _sent(job, gateway, 200 if job.ended else 202, headers)


@router.get(
    "/{job_id}",
    summary="Where it stands, and the answer",
    response_model=Visualization,
    responses=_READ_RESPONSES,
)
async def read_visualization(
    job_id: JobId, gateway: GatewayDep, request: Request, wait: Wait = 0
) -> Response:
    """State, progress and result; with `wait`, answers when the job ends or the time is over."""
    job = await gateway.ended(job_id, wait, request)
    return await _sent(job, gateway, 200, {})


async def _submitted_once(asked: AskedFor, gateway: Gateway, key: str | None) -> Job:
    """The job, new or known; with a key that came before, the one that it led to then, as it stands."""
    if key is None:
        return await _submit(asked, gateway)
    caller, idempotency = gateway.caller.name, gateway.idempotency
    earlier = await gateway.call(idempotency.begin, caller, key, asked)
    if earlier is not None:
        known = await gateway.call(gateway.known, earlier)
        if known is not None:
            return known
    job_id = None
    try:
        job = await _submit(asked, gateway)
        job_id = job.id
        return job
    finally:
        await gateway.call(idempotency.end, caller, key, asked, job_id)


async def _submit(asked: AskedFor, gateway: Gateway) -> Job:
    try:
        model = await gateway.model(asked.model)
        submission = gateway.questions.submission(asked, model, gateway.caller.name)
        within_limits(submission.spec, model, gateway.settings)
        return await gateway.submit(submission)
    except InvalidRequest as error:
        raise refusal_of(error, "body", asked.model_dump(mode="json")) from error


async def _sent(job: Job, gateway: Gateway, status: int, headers: dict[str, str]) -> Response:
    """The same document, ready to be sent: that of one that succeeded is made once."""
    headers |= _headers(job)
    if job.state == "succeeded":
        content = gateway.renderings(job)
    else:
        content = (await _document(job, gateway)).model_dump_json().encode()
    return Response(content, status, headers, media_type="application/json")


async def answered(job: Job, gateway: Gateway, response: Response) -> Visualization:
    """The document of `job` as it stands, with the headers that go with it."""
    response.headers.update(_headers(job))
    return await _document(job, gateway)


async def _document(job: Job, gateway: Gateway) -> Visualization:
    position = blocked = None
    if job.state == "queued":
        position = job.place.ahead
        blocked = (
            None if job.place.taken else await gateway.call(catalog.obstacle, gateway.redis, job.spec.model)
        )
    return visualization(job, position, blocked, time.time())


def _headers(job: Job) -> dict[str, str]:
    return {"Cache-Control": "no-store"} | ({} if job.ended else {"Retry-After": str(RETRY_AFTER_S)})
