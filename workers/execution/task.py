"""The RQ task: computes a job, whatever its kind, and stores what came of it.

The artifacts are stored first and the record beside them last, each written once. Whoever dies in between
leaves artifacts; the next run keeps those that its kind accepts, adds what is missing, and makes the record
of what is in the store. Then the state changes (`workers.process.rq_worker`), if the run still holds the job.
"""

from __future__ import annotations

import logging

from proxygrad.errors import ModelError
from workers.errors import UnknownKind
from workers.execution import run as assignments
from workers.execution.compute import PROGRESS_S
from workers.execution.kinds.base import Artifacts
from workers.execution.kinds.registry import COMPUTATIONS
from workers.execution.run import JobRun
from workers.jobs.job import Job
from workers.storage.paths import artifact_path, result_path

_log = logging.getLogger(__name__)


def run_job(job_id: str) -> Job:
    """Compute job ``job_id`` and store what came of it; the job as it has succeeded.

    Raises `LookupError` or `PermissionError` for an entry that is none of ours, what the computation of its
    kind raises, and `StorageError`; `GivenBack` for a kind that only a newer version knows, and where another
    worker has the weights that the job was requested of.
    """
    assignment = assignments.current()
    if job_id != assignment.run.job_id:
        raise PermissionError(f"the entry of job {assignment.run.job_id} asks for job {job_id}")
    try:
        job = assignment.runtime.jobs.fetch(job_id)
    except UnknownKind as error:
        assignment.give_back(str(error))
        raise
    if job is None:
        raise LookupError(f"job {job_id} has no record")
    assignment.set_deadline(job.deadline_at)
    if job.cancel_requested is not None:
        assignment.cancel()
    while assignment.runtime.pins.is_locked(job.id):  # none begins while the job runs
        assignment.stay()
        assignment.lost.wait(PROGRESS_S)
    stored = _stored(assignment, job)
    return stored or _keep(assignment, job, _compute(assignment, job))


def _compute(assignment: JobRun, job: Job) -> Artifacts:
    """What came of the job. A model that is not here as it was requested may be at another worker.

    A fault of a model that is offered here as requested would be the same there, and so is the job's.
    """
    try:
        return COMPUTATIONS[job.kind](assignment, job)
    except ModelError as error:
        ready = [model.info for model in assignment.runtime.models.served if model.info is not None]
        if not any(job.spec.identity(info) == job.id for info in ready if info.name == job.spec.model):
            assignment.pass_on(error)
        raise


def _stored(assignment: JobRun, job: Job) -> Job | None:
    """The answer, where an earlier run stored everything and died before it could say so.

    A record with an artifact gone or damaged is none, and is taken away: an image could not be made the same
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


def _keep(assignment: JobRun, job: Job, artifacts: Artifacts) -> Job:
    """Store artifacts and record; the job as the store has it, perhaps in part or all an earlier run's."""
    stored = {name: _keep_artifact(assignment, job, artifacts, name) for name in artifacts.files}
    end = {"state": "succeeded", "finished_at": assignment.runtime.now()}
    return _keep_record(assignment, job.model_copy(update={**end, **artifacts.fields(stored)}))


def _keep_artifact(assignment: JobRun, job: Job, artifacts: Artifacts, name: str) -> bytes:
    """Store one artifact; the bytes that the store has."""
    store, path, data = assignment.runtime.store, artifact_path(job.id, name), artifacts.files[name]
    assignment.enter("storing")
    if store.put(path, data):
        return data
    there = store.get(path)
    if there is not None and artifacts.accepts(name, there):
        return there
    _log.warning("%s in the store %s is gone or damaged, and is replaced", path, store.url)
    assignment.stay()
    store.replace(path, data)
    return data


def _keep_record(assignment: JobRun, ended: Job) -> Job:
    """The job as the store has it: another run's record counts where the artifacts are those it describes."""
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
