"""`/v1/batches`: the same request for many units of a layer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import fastapi
from fastapi import APIRouter, Depends, Query, Request, Response

from proxygrad.protocol.addresses import BATCHES
from proxygrad.protocol.batches import Batch, BatchPage, BatchState, BatchUnitPage
from proxygrad.protocol.jobs import State as JobState
from proxygrad.protocol.pagination import DEFAULT_LIMIT
from proxygrad.protocol.requests import BatchRequest
from service.api.dependencies import ID, SessionDep, known_form
from service.api.examples import BATCH_BODY
from service.backend import admission, documents
from service.backend.idempotency import IdempotencyKey
from service.backend.long_polling import (
    PREFERENCE_APPLIED,
    RETRY_AFTER,
    RETRY_AFTER_S,
    Prefer,
    Wait,
    preferred_wait_s,
)
from service.problems import ProblemError, problem_responses
from service.web.json_body import json_body, parsed
from service.web.links import link
from service.web.pagination import Cursor, Limit, entry_of, only, page
from workers.batches import repository as batches
from workers.batches.repository import Unit

DEFAULT_UNITS, MAX_UNITS = 100, 1000

router = APIRouter(prefix=BATCHES, tags=["batches"])

BatchId = Annotated[str, ID, known_form("unknown_batch", "batch")]
UnitStates = Annotated[
    list[Literal["waiting", JobState]],  # one list of values, so that an error names them all
    only("units in these states", most=10),
]

_LINK = {"description": "Path of the batch.", "schema": {"type": "string"}}
_HEADERS = {"Location": _LINK, "Preference-Applied": PREFERENCE_APPLIED}
_POST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Ended, before or within the wait.", "model": Batch, "headers": _HEADERS},
    202: {
        "description": "Running; poll `Location`.",
        "headers": {**_HEADERS, "Retry-After": RETRY_AFTER},
    },
    **problem_responses(
        *("invalid_json", "json_too_deep", "unknown_model", "unknown_layer", "body_too_large"),
        *("unsupported_media_type", "invalid_request", "unit_out_of_range", "position_out_of_range"),
        *("objective_mismatch", "limit_exceeded", "cost_too_high", "too_many_batches"),
        *("webhook_refused", "too_many_webhooks", "unreadable_record", "idempotency_key_reused"),
        *("model_unavailable", "no_worker", "redis_unavailable", "queue_memory_full"),
    ),
}
_READ_RESPONSES = problem_responses(
    "unknown_batch", "unreadable_record", "invalid_request", "redis_unavailable"
)
_CANCEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Canceled."},
    202: {"description": "Its running jobs are being stopped; look again.", "model": Batch},
    **problem_responses(
        "unknown_batch",
        "unreadable_record",
        "forbidden",
        "batch_ended",
        "invalid_request",
        "redis_unavailable",
    ),
}
_DELETE_RESPONSES: dict[int | str, dict[str, Any]] = {
    204: {"description": "Deleted."},
    **problem_responses(
        "unknown_batch", "unreadable_record", "forbidden", "invalid_request", "redis_unavailable"
    ),
}


async def _body(request: fastapi.Request) -> BatchRequest:
    return parsed(await json_body(request), BatchRequest)


@router.post(
    "",
    summary="Request a batch",
    status_code=202,
    response_model=Batch,
    responses=_POST_RESPONSES,
    openapi_extra=BATCH_BODY,
)
async def create_batch(
    body: Annotated[BatchRequest, Depends(_body)],
    session: SessionDep,
    request: Request,
    response: Response,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Batch:
    """Safe to repeat: the same units and settings have the same id, and no unit is computed twice.

    Units that succeeded before cost nothing. On a repeated request, those that failed or were canceled are
    tried again. Units are queued some at a time, so that a batch of any size leaves room for others.
    """
    wait_s = preferred_wait_s(prefer)
    checked = admission.check_webhook(body, session.backend.allowed_hosts)
    batch = await session.submit_batch(checked, idempotency_key)
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        batch = await session.wait_for_batch(batch, wait_s, request)
    response.headers["Location"] = link(f"{BATCHES}/{batch.id}")
    response.status_code = 200 if batch.ended else 202
    return _document(batch, response)


@router.get(
    "",
    summary="List batches, newest first",
    responses=problem_responses("invalid_request", "redis_unavailable"),
)
async def list_batches(
    session: SessionDep,
    response: Response,
    model: Annotated[list[str], only("of these models")],
    layer: Annotated[list[str], only("of these layers")],
    state: Annotated[list[BatchState], only("in these states")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> BatchPage:
    """The caller's batches, by the time of the last request; each is kept for a week after its end."""

    def fits(batch: batches.BatchRecord) -> bool:
        return (
            (not model or batch.template.model in model)
            and (not layer or batch.template.layer in layer)
            and (not state or batch.state in state)
        )

    listed, end, unreadable = await session.list_batches(entry_of(cursor), limit, fits)
    links = page(
        response,
        BATCHES,
        {"model": model, "layer": layer, "state": state},
        limit=limit,
        cursor=cursor,
        end=end,
    )
    batches = [documents.batch(each, brief=True) for each in listed]
    return BatchPage(batches=batches, unreadable=unreadable, links=links)


@router.get("/{batch_id}", summary="Read a batch", responses=_READ_RESPONSES)
async def read_batch(
    batch_id: BatchId, session: SessionDep, request: Request, response: Response, wait: Wait = 0
) -> Batch:
    """State and counts. With `wait`, responds when the batch ends or the time is over."""
    batch = await session.wait_for_batch(await session.batch(batch_id), wait, request)
    return _document(batch, response)


@router.get(
    "/{batch_id}/visualizations",
    summary="List the units of a batch, in their order",
    responses=_READ_RESPONSES,
)
async def list_batch_visualizations(
    batch_id: BatchId,
    session: SessionDep,
    response: Response,
    state: UnitStates,
    limit: Annotated[
        int, Query(ge=1, le=MAX_UNITS, description="Maximum number of units per page.")
    ] = DEFAULT_UNITS,
    cursor: Annotated[
        int, Query(ge=0, lt=2**31, description="From `links.next`: the number of units before the page.")
    ] = 0,
) -> BatchUnitPage:
    """The state of each unit, and its visualization."""
    batch = await session.batch(batch_id)

    def fits(unit: Unit) -> bool:
        return not state or unit.state in state

    units, end = await session.list_units(batch, cursor, limit, fits)
    path = f"{BATCHES}/{batch_id}/visualizations"
    links = page(response, path, {"state": state}, limit=limit, cursor=cursor, end=end)
    return BatchUnitPage(visualizations=[documents.batch_unit(unit) for unit in units], links=links)


@router.post(
    "/{batch_id}/cancel", summary="Cancel a batch", response_model=Batch, responses=_CANCEL_RESPONSES
)
async def cancel_batch(batch_id: BatchId, session: SessionDep, response: Response) -> Batch:
    """Units that are not queued or wait are canceled at once; runs are asked to stop.

    Visualizations that other callers, or other batches of the caller, have requested too go on. Safe to
    repeat. A batch that has succeeded or failed stays as it is: 409, with its state.
    """
    batch = await session.cancel_batch(batch_id)
    if batch.state in ("succeeded", "failed"):
        raise ProblemError(
            "batch_ended",
            f"batch {batch_id} has ended: it {batch.state}, and there is nothing to cancel",
            state=batch.state,
        )
    response.status_code = 200 if batch.ended else 202
    return _document(batch, response)


@router.delete(
    "/{batch_id}",
    summary="Cancel and delete a batch",
    status_code=204,
    response_class=Response,
    responses=_DELETE_RESPONSES,
)
async def delete_batch(batch_id: BatchId, session: SessionDep) -> Response:
    """Cancels what has not ended, and deletes the batch. Its visualizations stay."""
    await session.forget_batch(batch_id)
    return Response(status_code=204)


def _document(batch: batches.BatchRecord, response: Response) -> Batch:
    response.headers["Cache-Control"] = "no-store"
    if not batch.ended:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return documents.batch(batch)
