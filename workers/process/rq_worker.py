"""RQ's worker and RQ's job, subclassed: a slot is an RQ worker as a thread around the process's engine.

RQ's own ways to run a job do not fit: a forked child cannot use CUDA or a warm model, and `SimpleWorker`
neither sends heartbeats during a job nor fences what it records. So a slot keeps RQ's loop and its records,
which `rq info` and dashboards read, and replaces how a job is found, started, kept and closed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import uuid4

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker, worker_registration
from rq.exceptions import NoSuchJobError, StopRequested
from rq.job import Job as RQJob
from rq.worker import WorkerStatus

from workers.broker import rq_names
from workers.broker.limits import FINISHED_TTL_S
from workers.errors import LeaseLost
from workers.execution.checkpoints import discard
from workers.execution.context import WorkerContext
from workers.execution.outcome import RunOutcome
from workers.execution.run import JobRun, assigned
from workers.execution.task import run_job
from workers.jobs.job import Job
from workers.process.dispatcher import Dispatcher
from workers.process.rq_registration import WORKER_TTL_S, RQRegistration
from workers.queue.leases import Run
from workers.queue.rq_entries import SERIALIZER, TASK

#: A slot that finds its next job within this stays `busy` in RQ's records; that saves two commands a job.
IDLE_S = 0.05
#: RQ's record of a worker that ended, as RQ keeps it.
DEATH_TTL_S = 60

_log = logging.getLogger(__name__)


class QueueEntry(RQJob):
    """A job as a slot takes it from the queue.

    Whoever can write to Redis could name any function in it: this class runs the one task and nothing
    else, ignores callbacks and webhooks, and calls no method of a stored object.
    """

    success_callback = None
    failure_callback = None
    stopped_callback = None

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Read the stored fields, without webhooks: these would let a writer of Redis send requests."""
        super().restore(raw_data)
        self.webhooks = []

    @property
    def func(self) -> Callable[[str], Job]:
        """The task. Raises `PermissionError` for any other name."""
        if self.func_name != TASK or self.instance is not None:
            raise PermissionError(f"job {self.id} names the task {self.func_name!r}; allowed: {TASK}")
        return run_job


class SlotWorker(SimpleWorker):
    """One RQ worker in a thread of the process that ``runtime`` describes."""

    job_class = QueueEntry

    def __init__(
        self, name: str, runtime: WorkerContext, dispatcher: Dispatcher, registration: RQRegistration
    ) -> None:
        #: The run whose lease is to be renewed, if any; read by the process's other threads.
        self.assignment: JobRun | None = None
        self._runtime = runtime
        self._dispatcher = dispatcher
        self._registration = registration
        self._recording = threading.Lock()  # RQ's record and the state of the slot change together
        super().__init__(
            [rq_names.QUEUE_NAME],
            name=name,
            connection=runtime.redis,
            worker_ttl=WORKER_TTL_S,
            default_result_ttl=FINISHED_TTL_S,
            serializer=SERIALIZER,
        )

    # -- the process around it -----------------------------------------------------------------------------

    def _set_connection(self, connection: Redis) -> Redis:
        """Leave the pool as it is: RQ would raise the socket timeout of every user of it."""
        return connection

    def _set_ip_address(self, connection: Redis) -> None:
        """RQ asks through CLIENT SETNAME, which names one connection of a pool that all slots share."""
        self.ip_address = "unknown"

    def _install_signal_handlers(self) -> None:
        """Signals belong to the process (`workers.process.main`)."""

    def subscribe(self) -> None:
        """No thread and connection for each slot; `workers.process.listener` listens for all of them."""

    def unsubscribe(self) -> None:
        """See `subscribe`."""

    def check_for_suspension(self, burst: bool) -> None:
        """`rq suspend` is for the dispatcher to heed, which slots wait for."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Never: RQ's cleanup can queue a job twice. Janitors do it (`workers.queue.janitor`)."""
        return False

    # -- RQ's record of it ---------------------------------------------------------------------------------

    def register_birth(self) -> None:
        """As RQ does, in a full Redis too; the name is new each time."""
        self.birth_date = self.last_heartbeat = datetime.now(UTC)
        self.enroll()

    def enroll(self) -> None:
        """Write RQ's record as it should be now. The process's beat may do so at any moment."""
        with self._recording:
            run = self.assignment
            current = {} if run is None else {"current_job": run.run.job_id}
            self._registration.enroll(self.key, {**self.serialize(), "state": self.get_state(), **current})

    def register_death(self) -> None:
        """As RQ does, in a full Redis too."""
        worker_registration.unregister(self)
        self._registration.update(self.key, {"death": rq_names.timestamp()}, ttl_s=DEATH_TTL_S)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """The process beats for all its slots (`workers.process.heartbeat`)."""

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Note a new state."""
        with self._recording:
            if state != self._state:
                self._state = state
                self._registration.update(self.key, {"state": state})

    # -- working -------------------------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue]:
        """The next job; on the way it stays in Redis' list of popped ones. Raises `StopRequested`."""
        while not self._runtime.stopping.is_set():
            job_id = self._dispatcher.take(IDLE_S) if self.get_state() == WorkerStatus.BUSY else None
            if job_id is None:
                self.set_state(WorkerStatus.IDLE)
                job_id = self._dispatcher.take()
            entry = None if job_id is None else self._fetch(job_id)
            if entry is not None:
                return entry, self.queues[0]
        raise StopRequested

    def _fetch(self, job_id: str) -> RQJob | None:
        """The entry; None for one that is gone, which a janitor drops, or cannot be read, which fails."""
        try:
            return QueueEntry.fetch(job_id, connection=self.connection, serializer=self.serializer)
        except NoSuchJobError:
            return None
        except RedisError:
            raise
        except Exception as error:
            assignment = JobRun(Run(job_id, uuid4().hex), self.name, self._runtime)
            if self._take(assignment):
                self._close(assignment, RunOutcome.by(error, job_id), 0.0)
            return None

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Take the lease, run the task as this slot's `workers.execution.run.current`, and record its end.

        Raises `StopRequested` when Redis fails for longer than is waited for: the janitors find the job.
        """
        assignment = JobRun(Run(job.id, uuid4().hex), self.name, self._runtime)
        began = datetime.now(UTC)
        try:
            with self._recording:
                if not self._take(assignment):
                    return
                self.assignment = assignment
                self._state = WorkerStatus.BUSY  # as its record says since
            ending = self._perform(job, assignment)
            if ending is None:
                self.set_current_job_id(None)
            else:
                self._close(assignment, ending, (datetime.now(UTC) - began).total_seconds())
        except RedisError as error:
            _log.warning("job %s is left to the janitors: %s", job.id, error)
            raise StopRequested from error  # without another beat, or a record that might get through
        finally:
            self.assignment = None

    def _take(self, assignment: JobRun) -> bool:
        """Whether the job is ours to run now."""
        taking = self._runtime.leases.take(assignment.run, slot=self.name, worker=self._runtime.worker)
        if taking != "taken":
            _log.info("job %s is not started: it is %s", assignment.run.job_id, taking)
        return taking == "taken"

    def _perform(self, job: RQJob, assignment: JobRun) -> RunOutcome | None:
        """How the run ended; None where that is not for it to say. Raises Redis' errors."""
        try:
            with assigned(assignment):
                return RunOutcome.of(job.perform())
        except RedisError:
            raise
        except LeaseLost as lost:
            _log.info("%s", lost)
            return None
        except Exception as error:
            return RunOutcome.by(error, job.id)

    def _close(self, assignment: JobRun, ending: RunOutcome, ran_s: float) -> None:
        closing = self._runtime.leases.close(
            assignment.run,
            ending.outcome,
            fields=ending.fields,
            slot=self.name,
            ran_s=ran_s,
            exc_string=ending.exc_string,
        )
        job_id = assignment.run.job_id
        if closing == "closed":
            discard(assignment)
            if ending.outcome == "succeeded":
                _log.info("job %s succeeded in %.2f s: %s", job_id, ran_s, ending.about)
        elif closing == "queued":
            _log.info("job %s waits again: it was requested while it was being stopped", job_id)
        else:
            _log.info("job %s: the lease of run %s has ended", job_id, assignment.run.execution_id)
