"""The RQ task: from a job's spec, through the engine, to artefacts in the store and an end in the record.

The image is stored first and the record beside it last, each written once. Whoever dies in between leaves an
image that says itself what it is; the next run keeps it and finishes the record from it. Then the state
changes, if the run still holds the job.
"""

from __future__ import annotations

import hashlib
import logging

from redis.exceptions import RedisError

from proxygrad.errors import Cancelled, ProxyGradError
from proxygrad.images import annotate_png, read_text
from proxygrad.spec import Result, Spec
from workers import queue, runtime
from workers.errors import GivenBack, LeaseLost
from workers.jobs import ImageInfo, Job, Problem, image_path, result_path
from workers.runtime import Assignment, Progress, Rendering

#: Progress is written and a stop is noticed this often; the end is noticed at once.
PROGRESS_S = 0.25

_log = logging.getLogger(__name__)


def render(job_id: str) -> str:
    """Make the image of job ``job_id``; its final state.

    What is wrong with the question, the model or the image fails the job and is not tried again. Raises it
    once more for RQ's records; `LeaseLost` when the job is not ours any more; and Redis' errors, which
    leave the job to be found by a janitor.
    """
    assignment = runtime.current()
    if job_id != assignment.run.job_id:
        raise PermissionError(f"the entry of job {assignment.run.job_id} asks for job {job_id}")
    job = assignment.runtime.jobs.fetch(job_id)
    if job is None:
        raise LookupError(f"job {job_id} has no record")
    try:
        return _finish(assignment, _answer(assignment, job))
    except (LeaseLost, RedisError):
        raise
    except Exception as error:
        _fail(assignment, error)
        raise


def _answer(assignment: Assignment, job: Job) -> Job:
    # An earlier run may have stored everything and died before it could say so.
    return assignment.runtime.jobs.stored(job.id) or _keep(assignment, job, _compute(assignment, job.spec))


def _compute(assignment: Assignment, spec: Spec) -> Rendering:
    there = assignment.runtime
    ticket = there.engine.submit(there.models.network(spec.model), spec)
    written = 0
    try:
        while not ticket.wait(PROGRESS_S):
            _stay(assignment)
            if ticket.progress.step > written:
                written = _write_progress(assignment, ticket.progress)
    except BaseException:
        ticket.cancel()
        raise
    try:
        return ticket.result()
    except Cancelled:
        _stay(assignment)  # an engine that closes cancels; that is no failure of the job
        raise


def _stay(assignment: Assignment) -> None:
    """Return as long as the run may go on; raises `LeaseLost`, or `GivenBack` after giving the job back."""
    run, there = assignment.run, assignment.runtime
    stopping = there.stopping.is_set()
    if assignment.lost.is_set() or (stopping and not there.leases.give_back(run)):
        raise LeaseLost(f"job {run.job_id}: the lease of run {run.execution_id} has ended")
    if stopping:
        raise GivenBack(f"job {run.job_id} is back in the queue: the worker stops")


def _write_progress(assignment: Assignment, progress: Progress) -> int:
    fields: dict[str, str | int | float] = {"step": progress.step}
    if progress.activation is not None:
        fields["activation"] = progress.activation
    assignment.runtime.leases.write(assignment.run, fields)
    return progress.step


def _keep(assignment: Assignment, job: Job, rendering: Rendering) -> Job:
    """Store the image and the record; the job as the store has it, which may be an earlier run's."""
    store, path = assignment.runtime.store, image_path(job.id, 0)
    png, result = _annotated(job, rendering), rendering.result
    if not store.put(path, png):
        png = store.get(path) or png
        result = Result.model_validate_json(read_text(png)["result"])
    ended = job.model_copy(
        update={
            "state": "succeeded",
            "finished_at": assignment.runtime.now(),
            "step": result.steps_done,
            "activation": result.achieved_activation,
            "result": result,
            "images": (_describe(png, result),),
        }
    )
    if not store.put(result_path(job.id), ended.model_dump_json().encode()):
        return assignment.runtime.jobs.stored(job.id) or ended
    return ended


def _annotated(job: Job, rendering: Rendering) -> bytes:
    text = {
        "id": job.id,
        "spec": rendering.result.spec.model_dump_json(),
        "achieved_activation": repr(rendering.result.achieved_activation),
        "result": rendering.result.model_dump_json(),
    }
    return annotate_png(rendering.png, text)


def _describe(png: bytes, result: Result) -> ImageInfo:
    return ImageInfo(
        sha256=hashlib.sha256(png).hexdigest(),
        size_bytes=len(png),
        media_type="image/png",
        width_px=result.width_px,
        height_px=result.height_px,
    )


def _finish(assignment: Assignment, job: Job) -> str:
    assignment.runtime.leases.write(assignment.run, job.to_fields(), ttl_s=queue.FINISHED_TTL_S)
    _log.info("job %s succeeded: %s unit %d of %s", job.id, job.spec.layer, job.spec.unit, job.spec.model)
    return job.state


def _fail(assignment: Assignment, error: Exception) -> None:
    known = isinstance(error, ProxyGradError)
    code = error.code if isinstance(error, ProxyGradError) else "internal_error"
    detail = str(error) if known else f"the worker met an unexpected {type(error).__name__}; its log has more"
    fields: dict[str, str | int | float] = {
        "state": "failed",
        "finished_at": assignment.runtime.now(),
        "problem": Problem(code=code, detail=detail).model_dump_json(),
    }
    assignment.runtime.leases.write(assignment.run, fields, ttl_s=queue.FINISHED_TTL_S)
