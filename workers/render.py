"""The RQ task: what a job asks is computed, and the answer stored.

The image is stored first and the record beside it last, each written once. Whoever dies in between leaves an
image that says itself what it is; the next run keeps it and finishes the record from it. Then the state
changes (`workers.slot`), if the run still holds the job.
"""

from __future__ import annotations

import hashlib

from proxygrad.images import annotate_png, read_text
from proxygrad.spec import Result
from workers import assignment as assignments
from workers.assignment import Assignment
from workers.compute import PROGRESS_S, compute
from workers.jobs import ImageInfo, Job, image_path, result_path
from workers.runtime import Rendering


def render(job_id: str) -> Job:
    """Make the image of job ``job_id`` and store it; the job as it has succeeded.

    Raises `LookupError` or `PermissionError` for an entry that is none of ours, what `compute` raises, and
    `StorageError`.
    """
    assignment = assignments.current()
    if job_id != assignment.run.job_id:
        raise PermissionError(f"the entry of job {assignment.run.job_id} asks for job {job_id}")
    job = assignment.runtime.jobs.fetch(job_id)
    if job is None:
        raise LookupError(f"job {job_id} has no record")
    assignment.set_deadline(job.deadline_at)
    if job.cancel_requested is not None:
        assignment.cancel()
    while assignment.runtime.claims.collecting(job.id):  # none begins while the job runs
        assignment.stay()
        assignment.lost.wait(PROGRESS_S)
    return _stored(assignment, job) or _keep(assignment, job, compute(assignment, job))


def _stored(assignment: Assignment, job: Job) -> Job | None:
    """The answer, where an earlier run stored everything and died before it could say so.

    A record whose image is gone is none, and is taken away: its image could not be made the same again.
    """
    jobs, store = assignment.runtime.jobs, assignment.runtime.store
    stored = jobs.stored(job.id)
    if stored is None:
        return None
    if not jobs.whole(stored):
        store.delete(result_path(job.id))
        return None
    if job.checkpoint is not None:
        assignment.checkpoints.add(job.checkpoint.path)
    return stored


def _keep(assignment: Assignment, job: Job, rendering: Rendering) -> Job:
    """Store the image and the record; the job as the store has it, which may be an earlier run's."""
    store, path = assignment.runtime.store, image_path(job.id, 0)
    png, result = _annotated(job, rendering), rendering.result
    assignment.enter("storing")
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
    assignment.enter("storing")
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
