"""`/v1/visualizations`: request, list, read, cancel, retry and delete visualizations."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request, Response

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.jobs import State
from proxygrad.protocol.pagination import DEFAULT_LIMIT
from proxygrad.protocol.visualizations import Visualization, VisualizationPage
from service.api import jobs
from service.api.dependencies import ID, job_session, known_form
from service.api.examples import VISUALIZATION_BODY
from service.backend.idempotency import PARAMETER as IDEMPOTENCY_KEY
from service.backend.long_polling import PREFER, PREFERENCE_APPLIED, RETRY_AFTER, Wait
from service.backend.resources.session import JobSession
from service.backend.resources.visualizations import RESOURCE, summary
from service.problems import problem_responses
from service.web.pagination import Cursor, Limit, entry_of, only, page
from workers.jobs.kinds.visualization import VisualizationJob

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

VisualizationId = Annotated[str, ID, known_form(RESOURCE.unknown, RESOURCE.kind.name)]
VisualizationSession = Annotated[JobSession, Depends(job_session(RESOURCE))]

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
        "unreadable_record",
    ),
}
_READ_RESPONSES = problem_responses(
    "unknown_visualization",
    "unreadable_record",
    "invalid_request",
    "redis_unavailable",
    "storage_unavailable",
)
_CHANGE_RESPONSES = problem_responses(
    *("unknown_visualization", "unreadable_record", "visualization_ended", "invalid_request"),
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
async def create_visualization(session: VisualizationSession, request: Request) -> Response:
    """Safe to repeat: the same request has the same id and is computed once.

    A request that succeeded before is answered at once, with 200. A failed one is tried again.
    """
    return await jobs.create(session, request)


@router.get(
    "",
    summary="List visualizations, newest first",
    responses=problem_responses("invalid_request", "redis_unavailable"),
)
async def list_visualizations(
    session: VisualizationSession,
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

    def fits(job: VisualizationJob) -> bool:
        return (
            (not model or job.spec.model in model)
            and (not layer or job.spec.layer in layer)
            and (not state or job.state in state)
        )

    listed, end, unreadable = await session.list_jobs(entry_of(cursor), limit, fits)
    links = page(
        response,
        VISUALIZATIONS,
        {"model": model, "layer": layer, "state": state},
        limit=limit,
        cursor=cursor,
        end=end,
    )
    summaries = [summary(cast(VisualizationJob, job)) for job in listed]
    return VisualizationPage(visualizations=summaries, unreadable=unreadable, links=links)


@router.get(
    "/{visualization_id}",
    summary="Read a visualization",
    response_model=Visualization,
    responses=_READ_RESPONSES,
)
async def read_visualization(
    visualization_id: VisualizationId, session: VisualizationSession, request: Request, wait: Wait = 0
) -> Response:
    """State, progress and result. With `wait`, responds when the job ends or the time is over."""
    return await jobs.read(session, visualization_id, wait, request)


@router.post(
    "/{visualization_id}/cancel",
    summary="Cancel a visualization",
    response_model=Visualization,
    responses=_CANCEL_RESPONSES,
)
async def cancel_visualization(visualization_id: VisualizationId, session: VisualizationSession) -> Response:
    """A waiting job is canceled at once; a run is asked to stop, and may end well before it does.

    Safe to repeat. One that has succeeded or failed stays as it is: 409, with its state.
    """
    return await jobs.cancel(session, visualization_id)


@router.post(
    "/{visualization_id}/retry",
    summary="Retry a visualization",
    status_code=202,
    response_model=Visualization,
    responses=_RETRY_RESPONSES,
)
async def retry_visualization(visualization_id: VisualizationId, session: VisualizationSession) -> Response:
    """Queue a failed or canceled one again, without its deadline. Safe to repeat.

    One that has succeeded stays as it is: 409, with its state.
    """
    return await jobs.retry(session, visualization_id)


@router.delete(
    "/{visualization_id}",
    summary="Cancel and delete a visualization",
    status_code=204,
    responses=_DELETE_RESPONSES,
)
async def delete_visualization(visualization_id: VisualizationId, session: VisualizationSession) -> Response:
    """Nothing is left of it, for anybody: neither its record nor its pictures, but for those in caches.

    The same request afterwards computes it anew.
    """
    return await jobs.delete(session, visualization_id)
