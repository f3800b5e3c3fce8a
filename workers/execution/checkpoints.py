"""Checkpoints of a long run: written every few seconds, so that another run goes on instead of starting over.

The bytes go into the store, each run's at a path of its own; then the record gets the path, if the run still
holds the job; then an earlier run's bytes go. Whoever dies in between leaves bytes that nobody points at; the
store's collector removes them. What cannot be stored or read back costs time, never the job.
"""

from __future__ import annotations

import logging
import time

from workers.errors import StorageError
from workers.execution.context import FutureProtocol
from workers.execution.run import JobRun
from workers.jobs.job import CheckpointReference, Job
from workers.storage.paths import checkpoint_path

#: Between checkpoints, and what a killed worker's job loses at most. Cost: docs/measurements/queue.md.
CHECKPOINT_S = 5.0
#: One that takes long to write is written so much less often that it takes no more than a twentieth of a run.
COST = 20.0
#: Longest wait for the step after which the engine can tell the state.
STEP_LIMIT_S = 10.0

_log = logging.getLogger(__name__)


class RunCheckpoints:
    """The checkpoints of one run of ``job``: the one it goes on from, and those it writes."""

    def __init__(self, assignment: JobRun, job: Job) -> None:
        self._assignment = assignment
        self._store = assignment.runtime.store
        self._found = job.checkpoint
        self._path = checkpoint_path(job.id, assignment.run.execution_id)
        self._next_s = time.monotonic() + CHECKPOINT_S
        self._troubled = False
        if self._found is not None:
            assignment.checkpoints.add(self._found.path)

    @property
    def due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() >= self._next_s

    def load(self) -> bytes | None:
        """What an earlier run left; None where there is nothing, or it cannot be read."""
        if self._found is None:
            return None
        job_id = self._assignment.run.job_id
        try:
            data = self._store.get(self._found.path)
        except StorageError as error:
            _log.warning("job %s starts over: %s", job_id, error)
            return None
        if data is None:
            _log.warning("job %s starts over: there is no %s in the store", job_id, self._found.path)
        return data

    def save(self, ticket: FutureProtocol, step_limit_s: float = STEP_LIMIT_S) -> int | None:
        """Keep the state after the next step; its number, or None when there is none to keep.

        Raises `LeaseLost`.
        """
        began_s = time.monotonic()
        state = ticket.checkpoint(step_limit_s)
        asked_s = time.monotonic()
        step = None
        if state is not None and state.step > 0:
            self._assignment.enter("storing")
            try:
                self._keep(state.to_bytes(), state.step)
                step = state.step
            except StorageError as error:
                self._complain(error)
            finally:
                self._assignment.enter("computing")
        ended_s = time.monotonic()
        self._next_s = max(began_s + CHECKPOINT_S, ended_s + COST * (ended_s - asked_s))
        return step

    def _keep(self, data: bytes, step: int) -> None:
        self._assignment.checkpoints.add(self._path)
        self._store.replace(self._path, data)
        pointer = CheckpointReference(step=step, path=self._path)
        fields: dict[str, str | int | float] = {"checkpoint": pointer.model_dump_json(), "step": step}
        self._assignment.runtime.leases.write(self._assignment.run, fields)
        if self._found is not None and self._found.path != self._path:
            self._store.delete(self._found.path)
            self._assignment.checkpoints.discard(self._found.path)
        self._found = pointer

    def _complain(self, error: StorageError) -> None:
        """Once a run; it goes on without."""
        if not self._troubled:
            _log.warning("job %s goes on without a checkpoint: %s", self._assignment.run.job_id, error)
        self._troubled = True


def discard(assignment: JobRun) -> None:
    """Remove the checkpoints of a job that has ended. One that cannot be removed is left to the collector."""
    for path in assignment.checkpoints:
        try:
            assignment.runtime.store.delete(path)
        except StorageError as error:
            _log.warning("job %s: %s", assignment.run.job_id, error)
