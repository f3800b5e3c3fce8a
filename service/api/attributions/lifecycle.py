"""`/v1/attributions`: request, list, read, cancel, retry, delete and follow attributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request, Response

from proxygrad.protocol.addresses import ATTRIBUTIONS
from proxygrad.protocol.attributions import Attribution, AttributionPage
from proxygrad.protocol.jobs import State
from proxygrad.protocol.pagination import DEFAULT_LIMIT
from service.api import jobs
from service.api.attributions.body import BODY, read_body
from service.api.dependencies import ID, job_session, known_form
from service.api.events import STREAM_RESPONSES, LastEventHeader, LastEventQuery
from service.backend import admission
from service.backend.idempotency import PARAMETER as IDEMPOTENCY_KEY
from service.backend.idempotency import key_of
from service.backend.long_polling import PREFER, PREFERENCE_APPLIED, RETRY_AFTER, Wait, preferred_wait_s
from service.backend.resources.attributions import RESOURCE, submit, summary
from service.backend.resources.session import JobSession
from service.problems import problem_responses
from service.web.pagination import Cursor, Limit, entry_of, only, page
from workers.jobs.kinds.attribution import AttributionJob

router = APIRouter(prefix=ATTRIBUTIONS, tags=["attributions"])

AttributionId = Annotated[str, ID, known_form(RESOURCE.unknown, RESOURCE.kind.name)]
AttributionSession = Annotated[JobSession, Depends(job_session(RESOURCE))]

_LINK = {"description": "Path of the attribution.", "schema": {"type": "string"}}
_POST_HEADERS = {"Location": _LINK, "Preference-Applied": PREFERENCE_APPLIED}
_POST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Ended, before or within the wait.", "model": Attribution, "headers": _POST_HEADERS},
    202: {
        "description": "Accepted; poll `Location`.",
        "headers": {**_POST_HEADERS, "Retry-After": RETRY_AFTER},
    },
    **problem_responses(
        *("invalid_json", "invalid_multipart", "unknown_model", "unknown_layer", "body_too_large"),
        *("unsupported_media_type", "invalid_request", "invalid_image"),
        *("unknown_visualization", "image_not_ready", "no_image"),
        *("unit_out_of_range", "position_out_of_range", "objective_mismatch"),
        *("limit_exceeded", "model_unavailable", "no_worker", "redis_unavailable"),
        *("queue_full", "caller_queue_full", "queue_memory_full", "storage_unavailable"),
        *("webhook_refused", "too_many_webhooks"),
        *("too_many_in_flight", "json_too_deep", "cost_too_high", "idempotency_key_reused"),
        "unreadable_record",
    ),
}
_READ_RESPONSES = problem_responses(
    *("unknown_attribution", "unreadable_record", "invalid_request"),
    *("redis_unavailable", "storage_unavailable"),
)
_CHANGE_RESPONSES = problem_responses(
    *("unknown_attribution", "unreadable_record", "attribution_ended", "invalid_request"),
    *("redis_unavailable", "storage_unavailable"),
)
_CANCEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Canceled."},
    202: {"description": "In progress; poll again.", "model": Attribution},
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
        "model": Attribution,
    },
    204: {"description": "Deleted."},
    **_READ_RESPONSES,
}
_STREAM_RESPONSES = {**STREAM_RESPONSES, **_READ_RESPONSES, **problem_responses("too_many_streams")}


@router.post(
    "",
    summary="Request an attribution",
    status_code=202,
    response_model=Attribution,
    responses=_POST_RESPONSES,
    openapi_extra={**BODY, "parameters": [PREFER, IDEMPOTENCY_KEY]},
)
async def create_attribution(session: AttributionSession, request: Request) -> Response:
    """Which pixels made the unit respond: of a picture that is sent, or of an image of a visualization.

    It is compared with a reference, or with several, over which contributions are averaged; some of them may
    be sent as well. The same request for the same pixels has the same id and is computed once.
    """
    wait_s = preferred_wait_s(request.headers.get("prefer"))
    body, uploads = await read_body(session, request)
    checked = admission.check_webhook(body, session.backend.allowed_hosts)
    job = await submit(session, checked, uploads, key_of(request))
    return await jobs.created(session, request, job, wait_s)


@router.get(
    "",
    summary="List attributions, newest first",
    responses=problem_responses("invalid_request", "redis_unavailable"),
)
async def list_attributions(
    session: AttributionSession,
    response: Response,
    model: Annotated[list[str], only("of these models")],
    layer: Annotated[list[str], only("of these layers")],
    state: Annotated[list[State], only("in these states")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> AttributionPage:
    """Those that wait, run, or ended within a week, by the time of the last request that queued them."""

    def fits(job: AttributionJob) -> bool:
        return (
            (not model or job.spec.model in model)
            and (not layer or job.spec.layer in layer)
            and (not state or job.state in state)
        )

    listed, end, unreadable = await session.list_jobs(entry_of(cursor), limit, fits)
    filters: dict[str, Sequence[str]] = {"model": model, "layer": layer, "state": state}
    links = page(response, ATTRIBUTIONS, filters, limit=limit, cursor=cursor, end=end)
    summaries = [summary(cast(AttributionJob, job)) for job in listed]
    return AttributionPage(attributions=summaries, unreadable=unreadable, links=links)


@router.get(
    "/{attribution_id}", summary="Read an attribution", response_model=Attribution, responses=_READ_RESPONSES
)
async def read_attribution(
    attribution_id: AttributionId, session: AttributionSession, request: Request, wait: Wait = 0
) -> Response:
    """State and result. With `wait`, responds when the job ends or the time is over."""
    return await jobs.read(session, attribution_id, wait, request)


@router.post(
    "/{attribution_id}/cancel",
    summary="Cancel an attribution",
    response_model=Attribution,
    responses=_CANCEL_RESPONSES,
)
async def cancel_attribution(attribution_id: AttributionId, session: AttributionSession) -> Response:
    """A waiting job is canceled at once, one that runs after its current step. Safe to repeat."""
    return await jobs.cancel(session, attribution_id)


@router.post(
    "/{attribution_id}/retry",
    summary="Retry an attribution",
    status_code=202,
    response_model=Attribution,
    responses=_RETRY_RESPONSES,
)
async def retry_attribution(attribution_id: AttributionId, session: AttributionSession) -> Response:
    """Queue a failed or canceled one again, without its deadline. Safe to repeat.

    The picture is kept for an hour after such an end. Later it fails with `input_gone`: send the request
    again.
    """
    return await jobs.retry(session, attribution_id)


@router.delete(
    "/{attribution_id}",
    summary="Cancel and delete an attribution",
    status_code=204,
    responses=_DELETE_RESPONSES,
)
async def delete_attribution(attribution_id: AttributionId, session: AttributionSession) -> Response:
    """Nothing is left of it, for anybody: neither its record nor its files, nor the picture that was sent."""
    return await jobs.delete(session, attribution_id)


@router.get(
    "/{attribution_id}/events",
    summary="Follow an attribution",
    response_class=Response,
    responses=_STREAM_RESPONSES,
)
async def follow_attribution(
    attribution_id: AttributionId,
    session: AttributionSession,
    last_event_id: LastEventHeader = None,
    last_event: LastEventQuery = None,
) -> Response:
    """Its state now, and events from then on until it ends."""
    return await jobs.follow(session, attribution_id, last_event_id, last_event)
