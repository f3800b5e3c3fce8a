"""`/v1/batches`: the same question about many units of a layer."""

from __future__ import annotations

from typing import Annotated, Any

import fastapi
from fastapi import APIRouter, Depends, Request, Response

from proxygrad.errors import InvalidRequest, UnitOutOfRange
from service.api.ids import PathId
from service.backend.gateway import Gateway, GatewayDep
from service.backend.long_polling import (
    PREFERENCE_APPLIED,
    RETRY_AFTER,
    RETRY_AFTER_S,
    Heard,
    Prefer,
    Wait,
    preferred_wait_s,
    until_ended,
)
from service.problems import FieldError, ProblemError, problem_responses
from service.schemas.batches import Batch
from service.web.exception_handlers import refusal_of
from service.web.json_body import json_body, parsed, tellable, within_limits
from workers.batches import repository as batches
from workers.batches.repository import BatchRequest, ResolvedBatch

PREFIX = "/v1/batches"

router = APIRouter(prefix=PREFIX, tags=["batches"])

BatchId = PathId

EXAMPLES: dict[str, Any] = {
    "layer": {"summary": "Every unit of a layer", "value": {"model": "digits", "layer": "layer3"}},
    "range": {
        "summary": "Every other unit of the first 32, with settings",
        "value": {
            "model": "digits",
            "layer": "layer3",
            "units": {"start": 0, "stop": 32, "step": 2},
            "steps": 64,
        },
    },
    "list": {"summary": "Three units", "value": {"model": "digits", "layer": "layer3", "units": [3, 5, 8]}},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/BatchRequest"},
                "examples": EXAMPLES,
            }
        },
    }
}
_LINK = {"description": "Path of the batch.", "schema": {"type": "string"}}
_HEADERS = {"Location": _LINK, "Preference-Applied": PREFERENCE_APPLIED}
_POST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "It has ended, before or within the wait.", "model": Batch, "headers": _HEADERS},
    202: {
        "description": "It runs; look again at `Location`.",
        "headers": {**_HEADERS, "Retry-After": RETRY_AFTER},
    },
    **problem_responses(
        *("invalid_json", "json_too_deep", "unknown_model", "unknown_layer", "body_too_large"),
        *("unsupported_media_type", "invalid_request", "unit_out_of_range", "position_out_of_range"),
        *("objective_mismatch", "limit_exceeded", "cost_too_high", "too_many_batches"),
        *("webhook_refused", "too_many_webhooks"),
        *("model_unavailable", "no_worker", "redis_unavailable", "queue_memory_full"),
    ),
}
_READ_RESPONSES = problem_responses("unknown_batch", "invalid_request", "redis_unavailable")
_CANCELED: dict[int | str, dict[str, Any]] = {
    200: {"description": "It is canceled."},
    202: {"description": "What runs is being stopped; look again.", "model": Batch},
    **problem_responses("unknown_batch", "forbidden", "batch_ended", "invalid_request", "redis_unavailable"),
}


async def _asked(request: fastapi.Request) -> BatchRequest:
    return parsed(await json_body(request), BatchRequest)


@router.post(
    "",
    summary="Ask about many units",
    status_code=202,
    response_model=Batch,
    responses=_POST_RESPONSES,
    openapi_extra=_BODY,
)
async def create_batch(
    asked: Annotated[BatchRequest, Depends(_asked)],
    gateway: GatewayDep,
    request: Request,
    response: Response,
    prefer: Prefer = None,
) -> Batch:
    """Safe to repeat: the same units and settings have the same id, and no unit is computed twice.

    Units that were answered before cost nothing. Asked again, those that failed or were canceled are tried
    again. They are put into the queue some at a time, so that a batch of any size leaves room for others.
    """
    asked = tellable(asked, gateway.receivers)
    try:
        model = await gateway.model(asked.model)
        question = ResolvedBatch.of(asked, model)
        _check_size(question, gateway)
        within_limits(question.first, model, gateway.settings)
    except UnitOutOfRange as error:
        raise _out_of_range(error) from error
    except InvalidRequest as error:
        raise refusal_of(error, "body", asked.model_dump(mode="json")) from error
    batch, _ = await gateway.call(_ask, gateway, question, asked)
    wait_s = preferred_wait_s(prefer)
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        batch = await _ended(batch, gateway, wait_s, request)
    response.headers["Location"] = f"{PREFIX}/{batch.id}"
    response.status_code = 200 if batch.ended else 202
    return _answered(batch, response)


@router.get("/{batch_id}", summary="How far it is", responses=_READ_RESPONSES)
async def read_batch(
    batch_id: BatchId, gateway: GatewayDep, request: Request, response: Response, wait: Wait = 0
) -> Batch:
    """Its state and counts; with `wait`, answers when the batch ends or the time is over."""
    batch = await _ended(await visible(batch_id, gateway), gateway, wait, request)
    return _answered(batch, response)


@router.post("/{batch_id}/cancel", summary="Cancel a batch", response_model=Batch, responses=_CANCELED)
async def cancel_batch(batch_id: BatchId, gateway: GatewayDep, response: Response) -> Batch:
    """What was not queued yet and what waits is canceled at once; what runs is asked to stop.

    What others asked too, or another batch of the caller, goes on there. Safe to repeat. One that has
    succeeded or failed is left as it is: 409, with its state.
    """
    batch = await _own(batch_id, gateway, "cancel")
    if not batch.ended:
        await gateway.call(gateway.batches.cancel, batch_id)
        batch = await visible(batch_id, gateway)
    if batch.state in ("succeeded", "failed"):
        raise ProblemError(
            "batch_ended",
            f"batch {batch_id} has ended: it {batch.state}, and there is nothing to cancel",
            state=batch.state,
        )
    response.status_code = 200 if batch.ended else 202
    return _answered(batch, response)


@router.delete(
    "/{batch_id}",
    summary="Cancel and forget a batch",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "Gone."},
        **problem_responses("unknown_batch", "forbidden", "invalid_request", "redis_unavailable"),
    },
)
async def delete_batch(batch_id: BatchId, gateway: GatewayDep) -> Response:
    """Cancels what has not ended, and forgets the batch. The answers stay: each is a visualization."""
    await _own(batch_id, gateway, "delete")
    await gateway.call(gateway.batches.forget, batch_id)
    return Response(status_code=204)


async def visible(batch_id: str, gateway: Gateway) -> batches.Batch:
    """The batch of that id; refuses with `unknown_batch`, also where it is another caller's."""
    batch = await gateway.call(gateway.batches.fetch, batch_id)
    if batch is None or not (gateway.caller.sees_all or batch.caller == gateway.caller.name):
        raise ProblemError("unknown_batch", f"there is no batch {batch_id!r}")
    return batch


async def _own(batch_id: str, gateway: Gateway, what: str) -> batches.Batch:
    """The same; refuses to change what the caller sees only because it may see all."""
    batch = await visible(batch_id, gateway)
    if not gateway.caller.operates and batch.caller != gateway.caller.name:
        raise ProblemError("forbidden", f"to {what} another caller's batch, a key needs the scope 'admin'")
    return batch


def _ask(
    gateway: Gateway, question: ResolvedBatch, asked: BatchRequest
) -> tuple[batches.Batch, batches.Novelty]:
    caller = gateway.caller.name
    return gateway.batches.submit(question, asked, caller=caller, limits=gateway.limits)


def _check_size(question: ResolvedBatch, gateway: Gateway) -> None:
    """Hold the number of units against the operator's limit."""
    count, limit = len(question.units), gateway.settings.max_batch_units
    if count > limit:
        detail = (
            f"{count} units are more than this server takes in one batch: {limit} (its operator's "
            "PROXYGRAD_MAX_BATCH_UNITS); ask in parts, such as a range of units"
        )
        flaw = FieldError(location=["body", "units"], detail=detail, value=count, maximum=limit)
        raise ProblemError("limit_exceeded", detail, [flaw])


def _out_of_range(error: UnitOutOfRange) -> ProblemError:
    minimum, maximum = error.valid_range
    flaw = FieldError(location=["body", "units"], detail=str(error), value=error.unit)
    flaw.minimum, flaw.maximum = minimum, maximum
    return ProblemError("unit_out_of_range", str(error), [flaw])


def _answered(batch: batches.Batch, response: Response) -> Batch:
    response.headers["Cache-Control"] = "no-store"
    if not batch.ended:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return Batch.of(batch, PREFIX)


async def _ended(batch: batches.Batch, gateway: Gateway, wait_s: float, request: Request) -> batches.Batch:
    """The batch when it has ended, or as it stands after `wait_s` seconds or when the caller went away."""

    async def look(_: Heard) -> batches.Batch:
        return await visible(batch.id, gateway)

    return await until_ended(batch, batch.id, look, gateway.live, wait_s, request)
