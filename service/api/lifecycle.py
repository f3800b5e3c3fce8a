"""What can be done to a visualization: cancel it, retry it, delete it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.visualizations import Visualization
from service.api.visualizations import JobId, answered
from service.backend.gateway import GatewayDep
from service.problems import ProblemError, problem_responses
from workers.jobs.repository import Job

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

_CHANGED = problem_responses(
    *("unknown_visualization", "visualization_ended", "invalid_request"),
    *("redis_unavailable", "storage_unavailable"),
)
_LATER: dict[str, Any] = {"description": "Under way; look again.", "model": Visualization}
_DELETED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "It runs: it is stopped first, and removed within seconds of that.",
        "model": Visualization,
    },
    204: {"description": "Gone."},
    **problem_responses(
        "unknown_visualization", "invalid_request", "redis_unavailable", "storage_unavailable"
    ),
}


@router.post(
    "/{job_id}/cancel",
    summary="Cancel",
    response_model=Visualization,
    responses={200: {"description": "It is canceled."}, 202: _LATER, **_CHANGED},
)
async def cancel_visualization(job_id: JobId, gateway: GatewayDep, response: Response) -> Visualization:
    """One that waits is canceled at once; a run is asked to stop, and may end well before it does.

    Safe to repeat. One that has succeeded or failed is left as it is: 409, with its state.
    """
    await gateway.job(job_id)
    job = await gateway.call(gateway.cancel, job_id)
    if job is None:
        raise _unknown(job_id)
    if job.state in ("succeeded", "failed"):
        raise _ended(job, "there is nothing to cancel")
    response.status_code = 200 if job.ended else 202
    return await answered(job, gateway, response)


@router.post(
    "/{job_id}/retry",
    summary="Try again",
    status_code=202,
    response_model=Visualization,
    responses={
        202: {"description": "It waits or runs."},
        **_CHANGED,
        **problem_responses("queue_full", "caller_queue_full"),
        **problem_responses("redis_unavailable", "queue_memory_full", "storage_unavailable"),
    },
)
async def retry_visualization(job_id: JobId, gateway: GatewayDep, response: Response) -> Visualization:
    """Queue a failed or canceled one again, without its deadline. Safe to repeat.

    One that has succeeded is left as it is: 409, with its state.
    """
    known = await gateway.job(job_id)
    retried = await gateway.call(gateway.retry, job_id)
    job = known if retried is None else retried
    if job.ended:
        raise _ended(job, "its answer is there; to have it made anew, delete it and ask again")
    return await answered(job, gateway, response)


@router.delete("/{job_id}", summary="Cancel and forget", status_code=204, responses=_DELETED)
async def delete_visualization(job_id: JobId, gateway: GatewayDep) -> Response:
    """Nothing is left of it, for anybody: neither its record nor its pictures, but for those in caches.

    Asking the same question again afterwards computes it anew.
    """
    await gateway.job(job_id)
    if await gateway.call(gateway.forget, job_id):
        return Response(status_code=204)
    job = await gateway.call(gateway.jobs.fetch, job_id)
    if job is None:
        return Response(status_code=204)
    response = Response(status_code=202, media_type="application/json")
    document = await answered(job, gateway, response)
    response.body = document.model_dump_json().encode()
    response.headers["Content-Length"] = str(len(response.body))
    return response


def _unknown(job_id: str) -> ProblemError:
    return ProblemError("unknown_visualization", f"there is no visualization {job_id!r}")


def _ended(job: Job, what: str) -> ProblemError:
    return ProblemError(
        "visualization_ended",
        f"visualization {job.id} has ended: it {job.state}, and {what}",
        state=job.state,
    )
