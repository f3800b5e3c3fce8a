"""`/v1/visualizations`: request, list, read, cancel, retry and delete visualizations."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.jobs import State
from proxygrad.protocol.pagination import DEFAULT_LIMIT
from proxygrad.protocol.visualizations import Visualization, VisualizationPage
from service.api.dependencies import PathId, SessionDep
from service.api.examples import VISUALIZATION_BODY
from service.backend import admission, documents
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
from service.backend.session import CallerSession
from service.problems import ProblemError, problem_responses
from service.web.json_body import json_body
from service.web.pagination import Cursor, Limit, entry_of, only, page
from workers.fleet import catalog
from workers.jobs.repository import Job

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

JobId = PathId

_LINK = {"description": "Path of the visualization.", "schema": {"type": "string"}}
_POST_HEADERS = {"Location": _LINK, "Preference-Applied": PREFERENCE_APPLIED}
_POST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Ended, before or within the wait.",
        "model": Visualization,
        "headers": _POST_HEADERS,
    },
    202: {
        "description": "Accepted; poll `Location`.",
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
_CHANGE_RESPONSES = problem_responses(
    *("unknown_visualization", "visualization_ended", "invalid_request"),
    *("redis_unavailable", "storage_unavailable"),
)
_CANCEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Canceled."},
    202: {"description": "In progress; poll again.", "model": Visualization},
    **_CHANGE_RESPONSES,
}
_RETRY_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "Waiting or running."},
    **_CHANGE_RESPONSES,
    **problem_responses("queue_full", "caller_queue_full"),
    **problem_responses("redis_unavailable", "queue_memory_full", "storage_unavailable"),
}
_DELETE_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "It is running: it is stopped first and removed within seconds.",
        "model": Visualization,
    },
    204: {"description": "Deleted."},
    **_READ_RESPONSES,
}


@router.post(
    "",
    summary="Request a visualization",
    status_code=202,
    response_model=Visualization,
    responses=_POST_RESPONSES,
    openapi_extra={**VISUALIZATION_BODY, "parameters": [PREFER, IDEMPOTENCY_KEY]},
)
async def create_visualization(session: SessionDep, request: Request) -> Response:
    """Safe to repeat: the same request has the same id and is computed once.

    A request that succeeded before is answered at once, with 200. A failed one is tried again.
    """
    backend = session.backend
    body = admission.check_webhook(backend.requests.parse(await json_body(request)), backend.allowed_hosts)
    job = await session.submit(body, key_of(request))
    headers = {}
    wait_s = preferred_wait_s(request.headers.get("prefer"))
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s}"
        job = await session.wait_for_job(job.id, wait_s, request) if not job.ended else job
    headers["Location"] = f"{VISUALIZATIONS}/{job.id}"
    return await _response(job, session, 200 if job.ended else 202, headers)


@router.get(
    "",
    summary="List visualizations, newest first",
    responses=problem_responses("invalid_request", "redis_unavailable"),
)
async def list_visualizations(
    session: SessionDep,
    response: Response,
    model: Annotated[list[str], only("of these models")],
    layer: Annotated[list[str], only("of these layers")],
    state: Annotated[list[State], only("in these states")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> VisualizationPage:
    """Those that wait, run, or ended within a week, by the time of the last request that queued them.

    An older one is found by sending its request again.
    """

    def fits(job: Job) -> bool:
        return (
            (not model or job.spec.model in model)
            and (not layer or job.spec.layer in layer)
            and (not state or job.state in state)
        )

    jobs, end = await session.list_jobs(entry_of(cursor), limit, fits)
    links = page(
        response,
        VISUALIZATIONS,
        {"model": model, "layer": layer, "state": state},
        limit=limit,
        cursor=cursor,
        end=end,
    )
    return VisualizationPage(
        visualizations=[documents.visualization_summary(job) for job in jobs], links=links
    )


@router.get(
    "/{job_id}",
    summary="Read a visualization",
    response_model=Visualization,
    responses=_READ_RESPONSES,
)
async def read_visualization(
    job_id: JobId, session: SessionDep, request: Request, wait: Wait = 0
) -> Response:
    """State, progress and result. With `wait`, responds when the job ends or the time is over."""
    job = await session.wait_for_job(job_id, wait, request)
    return await _response(job, session, 200, {})


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a visualization",
    response_model=Visualization,
    responses=_CANCEL_RESPONSES,
)
async def cancel_visualization(job_id: JobId, session: SessionDep) -> Response:
    """A waiting job is canceled at once; a run is asked to stop, and may end well before it does.

    Safe to repeat. One that has succeeded or failed stays as it is: 409, with its state.
    """
    await session.job(job_id)
    job = await session.cancel(job_id)
    if job.state in ("succeeded", "failed"):
        raise _has_ended(job, "there is nothing to cancel")
    return await _response(job, session, 200 if job.ended else 202, {})


@router.post(
    "/{job_id}/retry",
    summary="Retry a visualization",
    status_code=202,
    response_model=Visualization,
    responses=_RETRY_RESPONSES,
)
async def retry_visualization(job_id: JobId, session: SessionDep) -> Response:
    """Queue a failed or canceled one again, without its deadline. Safe to repeat.

    One that has succeeded stays as it is: 409, with its state.
    """
    before = await session.job(job_id)
    job = await session.retry(job_id) or before
    if job.ended:
        raise _has_ended(job, "its result is there; to compute it anew, delete it and request it again")
    return await _response(job, session, 202, {})


@router.delete(
    "/{job_id}", summary="Cancel and delete a visualization", status_code=204, responses=_DELETE_RESPONSES
)
async def delete_visualization(job_id: JobId, session: SessionDep) -> Response:
    """Nothing is left of it, for anybody: neither its record nor its pictures, but for those in caches.

    The same request afterwards computes it anew.
    """
    await session.job(job_id)
    job = None if await session.forget(job_id) else await session.record(job_id)
    return Response(status_code=204) if job is None else await _response(job, session, 202, {})


async def _response(job: Job, session: CallerSession, status: int, headers: dict[str, str]) -> Response:
    """The document of ``job``. That of one that succeeded is made once, and for all callers."""
    headers["Cache-Control"] = "no-store"
    if not job.ended:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if job.state == "succeeded":
        content = session.backend.responses.document(job)
    else:
        content = (await _document(job, session)).model_dump_json().encode()
    return Response(content, status, headers, media_type="application/json")


async def _document(job: Job, session: CallerSession) -> Visualization:
    position = blocked = None
    if job.state == "queued":
        position = job.place.ahead
        if not job.place.taken:
            backend = session.backend
            blocked = await backend.call(catalog.obstacle, backend.redis, job.spec.model)
    return documents.visualization(job, position, blocked, time.time())


def _has_ended(job: Job, consequence: str) -> ProblemError:
    return ProblemError(
        "visualization_ended",
        f"visualization {job.id} has ended: it {job.state}, and {consequence}",
        state=job.state,
    )
