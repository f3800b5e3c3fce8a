"""The RQ task: what a job asks is computed, and the answer stored.

The images are stored first and the record beside them last, each written once. Whoever dies in between leaves
images that say themselves what they are; the next run keeps those, adds what is missing, and makes the record
of what the images in the store say, whichever run each is of. Then the state changes (`workers.slot`), if the
run still holds the job.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from proxygrad.images import annotate_png, read_text
from proxygrad.spec import Result
from workers import assignment as assignments
from workers.assignment import Assignment
from workers.compute import PROGRESS_S, compute
from workers.jobs import ImageInfo, Job, image_path, result_path
from workers.runtime import Rendering


def render(job_id: str) -> Job:
    """Make the images of job ``job_id`` and store them; the job as it has succeeded.

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

    A record with an image gone is none, and is taken away: the image could not be made the same again.
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
    """Store images and record; the job as the store has it, which may be in part or all an earlier run's."""
    kept = [_keep_image(assignment, job, rendering, number) for number in range(len(rendering.images))]
    result = kept[0].result
    if len(kept) > 1:
        result = result.of(tuple(each.result.image(0) for each in kept))
    ended = job.model_copy(
        update={
            "state": "succeeded",
            "finished_at": assignment.runtime.now(),
            "step": result.steps_done,
            "activation": result.achieved_activation,
            "result": result,
            "images": tuple(_describe(each.png, each.result) for each in kept),
            "best": result.best,
        }
    )
    assignment.enter("storing")
    if not assignment.runtime.store.put(result_path(job.id), ended.model_dump_json().encode()):
        return assignment.runtime.jobs.stored(job.id) or ended
    return ended


@dataclass(frozen=True)
class _Kept:
    """An image as it is in the store, and what it says: a result of which it is the only image."""

    png: bytes
    result: Result


def _keep_image(assignment: Assignment, job: Job, rendering: Rendering, number: int) -> _Kept:
    store, path = assignment.runtime.store, image_path(job.id, number)
    own = rendering.result
    if len(rendering.images) > 1:
        own = own.of((own.image(number),))
    png = _annotated(job, number, rendering.images[number], own)
    assignment.enter("storing")
    if store.put(path, png):
        return _Kept(png, own)
    png = store.get(path) or png
    return _Kept(png, Result.model_validate_json(read_text(png)["result"]))


def _annotated(job: Job, number: int, png: bytes, result: Result) -> bytes:
    text = {
        "id": job.id,
        "image": str(number),
        "spec": result.spec.model_dump_json(),
        "achieved_activation": repr(result.achieved_activation),
        "result": result.model_dump_json(),
    }
    return annotate_png(png, text)


def _describe(png: bytes, result: Result) -> ImageInfo:
    return ImageInfo(
        sha256=hashlib.sha256(png).hexdigest(),
        size_bytes=len(png),
        media_type="image/png",
        width_px=result.width_px,
        height_px=result.height_px,
    )
