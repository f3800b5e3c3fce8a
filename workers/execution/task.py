"""The RQ task: what a job asks is computed, and the answer stored.

The images are stored first and the record beside them last, each written once. Whoever dies in between leaves
images that say themselves what they are; the next run keeps those, adds what is missing, and makes the record
of what the images in the store say, whichever run each is of. A file that is damaged, or of another job, is
replaced. Then the state changes (`workers.process.rq_worker`), if the run still holds the job.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

from proxygrad.images import annotate_png, read_whole
from proxygrad.protocol.visualizations import ImageInfo
from proxygrad.spec import Result
from workers.execution import run as assignments
from workers.execution.compute import PROGRESS_S, compute
from workers.execution.context import Rendering
from workers.execution.run import JobRun
from workers.jobs.repository import Job
from workers.storage.paths import image_path, result_path

_log = logging.getLogger(__name__)


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
    while assignment.runtime.pins.is_locked(job.id):  # none begins while the job runs
        assignment.stay()
        assignment.lost.wait(PROGRESS_S)
    return _stored(assignment, job) or _keep(assignment, job, compute(assignment, job))


def _stored(assignment: JobRun, job: Job) -> Job | None:
    """The answer, where an earlier run stored everything and died before it could say so.

    A record with an image gone or damaged is none, and is taken away: the image could not be made the same
    again.
    """
    jobs, store = assignment.runtime.jobs, assignment.runtime.store
    stored = jobs.stored(job.id)
    if stored is None:
        return None
    if not jobs.intact(stored):
        assignment.stay()
        store.delete(result_path(job.id))
        return None
    if job.checkpoint is not None:
        assignment.checkpoints.add(job.checkpoint.path)
    return stored


def _keep(assignment: JobRun, job: Job, rendering: Rendering) -> Job:
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
    return _keep_record(assignment, ended)


def _keep_record(assignment: JobRun, ended: Job) -> Job:
    """The job as the store has it: another run's record counts where the images are those it describes."""
    jobs, store = assignment.runtime.jobs, assignment.runtime.store
    path, record = result_path(ended.id), ended.model_dump_json().encode()
    assignment.enter("storing")
    if store.put(path, record):
        return ended
    stored = jobs.stored(ended.id)
    if stored is not None and jobs.intact(stored):
        return stored
    assignment.stay()
    store.replace(path, record)
    return ended


@dataclass(frozen=True)
class _Kept:
    """An image as it is in the store, and what it says: a result of which it is the only image."""

    png: bytes
    result: Result


def _keep_image(assignment: JobRun, job: Job, rendering: Rendering, number: int) -> _Kept:
    store, path = assignment.runtime.store, image_path(job.id, number)
    own = rendering.result
    if len(rendering.images) > 1:
        own = own.of((own.image(number),))
    png = _annotated(job, number, rendering.images[number], own)
    assignment.enter("storing")
    if store.put(path, png):
        return _Kept(png, own)
    there = store.get(path)
    said = None if there is None else _read(there, job, number, own)
    if there is not None and said is not None:
        return _Kept(there, said)
    _log.warning("%s in the store %s is gone or damaged, and is replaced", path, store.url)
    assignment.stay()
    store.replace(path, png)
    return _Kept(png, own)


def _read(png: bytes, job: Job, number: int, own: Result) -> Result | None:
    """What a stored image says of itself; None unless it is whole and of the same job, number and weights.

    ``own``: what this run has to say of its image.
    """
    try:
        text = read_whole(png)
        result = Result.model_validate_json(text["result"])
    except (ValueError, KeyError):
        return None
    fits = _labels(job, number, own).items() <= text.items() and result.digest == own.digest
    return result if fits else None


def _annotated(job: Job, number: int, png: bytes, result: Result) -> bytes:
    text = {
        **_labels(job, number, result),
        "achieved_activation": repr(result.achieved_activation),
        "result": result.model_dump_json(),
    }
    return annotate_png(png, text)


def _labels(job: Job, number: int, result: Result) -> dict[str, str]:
    """The text of an image that says which one it is."""
    return {"id": job.id, "image": str(number), "spec": result.spec.model_dump_json()}


def _describe(png: bytes, result: Result) -> ImageInfo:
    return ImageInfo(
        sha256=hashlib.sha256(png).hexdigest(),
        size_bytes=len(png),
        media_type="image/png",
        width_px=result.width_px,
        height_px=result.height_px,
    )
