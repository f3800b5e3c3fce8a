"""Slots: RQ workers as threads around one engine. All that must be known of RQ's inside is here.

RQ's own ways to run a job do not fit: a forked child cannot use CUDA or a warm model, and `SimpleWorker`
neither beats during a job nor fences what it records. So a slot keeps RQ's loop, records and registries,
which `rq info` and dashboards read, and replaces how a job is popped, started, beaten for and closed.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError, WatchError
from rq import Queue, SimpleWorker, worker_registration
from rq.exceptions import DequeueTimeout, StopRequested
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.timeouts import TimerDeathPenalty
from rq.utils import utcformat
from rq.worker import WorkerStatus

from proxygrad.errors import ProxyGradError
from workers import queue
from workers.entry import Entry
from workers.errors import LeaseLost
from workers.leases import LEASE_S, Run
from workers.runtime import Assignment, Runtime, assigned

#: How long a slot waits for work before it looks whether it shall stop. Redis wakes it at once when there is
#: some; the price of a short wait is one command a slot and second.
POP_WAIT_S = 1
#: `rq info` stops listing a killed worker after this long.
WORKER_TTL_S = 30
#: Between an end of a slot that nobody asked for and its next start.
RESTART_PAUSE_S = 1.0

_log = logging.getLogger(__name__)


class Slot(SimpleWorker):
    """One RQ worker in a thread of the process that ``runtime`` describes."""

    job_class = Entry
    death_penalty_class = TimerDeathPenalty

    def __init__(self, name: str, runtime: Runtime) -> None:
        self._runtime = runtime
        self._assignment: Assignment | None = None
        self._beating: Assignment | None = None  # the same, from when its lease was taken
        super().__init__(
            [queue.QUEUE_NAME],
            name=name,
            connection=runtime.redis,
            worker_ttl=WORKER_TTL_S,
            default_result_ttl=queue.FINISHED_TTL_S,
            serializer=queue.SERIALIZER,
        )

    # -- the process around it -----------------------------------------------------------------------------

    def _set_connection(self, connection: Redis) -> Redis:
        """Leave the pool as it is: RQ would raise the socket timeout of every user of it."""
        return connection

    def _set_ip_address(self, connection: Redis) -> None:
        """RQ asks through CLIENT SETNAME, which names one connection of a pool that all slots share."""
        self.ip_address = "unknown"

    def _install_signal_handlers(self) -> None:
        """Signals belong to the process (`workers.main`)."""

    def subscribe(self) -> None:
        """No thread and connection for each slot; the process listens for all of them."""

    def unsubscribe(self) -> None:
        """See `subscribe`."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Never: RQ's cleanup can queue a job twice. Janitors do it (`workers.recovery`)."""
        return False

    # -- popping -------------------------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue]:
        """The next job; on the way it stays in Redis' list of popped ones. Raises `StopRequested`."""
        self.set_state(WorkerStatus.IDLE)
        while not self._runtime.stopping.is_set():
            try:
                popped = Queue.dequeue_any(
                    self._ordered_queues,
                    POP_WAIT_S,
                    connection=self.connection,
                    job_class=self.job_class,
                    serializer=self.serializer,
                    death_penalty_class=self.death_penalty_class,
                )
            except DequeueTimeout:
                continue
            if popped is not None:
                return popped
        raise StopRequested

    # -- starting ------------------------------------------------------------------------------------------

    def prepare_execution(self, job: RQJob) -> Execution:
        """Name the run; it becomes one when the lease is taken."""
        self.execution = Execution(uuid4().hex, job.id, self.connection, self.name)
        self._assignment = Assignment(Run(job.id, self.execution.id), self._runtime)
        self.set_state(WorkerStatus.BUSY)
        return self.execution

    def prepare_job_execution(self, job: RQJob, remove_from_intermediate_queue: bool = False) -> None:
        """Take the lease. Raises `LeaseLost` when the job is not ours to run."""
        assert self._assignment is not None
        now = datetime.now(UTC)
        taking = self._runtime.leases.take(
            self._assignment.run, slot=self.name, worker=self._runtime.worker, stamp=utcformat(now)
        )
        if taking != "taken":
            raise LeaseLost(f"job {job.id} is not started: it is {taking}")
        job.worker_name, job.started_at, job.last_heartbeat = self.name, now, now
        job._status = JobStatus.STARTED
        self._beating = self._assignment
        self.set_current_job_id(job.id)

    def get_heartbeat_ttl(self, job: RQJob) -> int:
        """A lease, not the job's timeout."""
        return LEASE_S

    def perform_job(self, job: RQJob, queue: Queue) -> bool:
        """Run the task with this slot as its `workers.runtime.current`."""
        assert self._assignment is not None
        with assigned(self._assignment):
            return super().perform_job(job, queue)

    # -- beating -------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """Keep the worker's record, and the lease of the job that runs. Called from the process's beater."""
        if self.birth_date is None:
            return  # RQ refuses to register a worker whose record is there already
        with self.connection.pipeline() as pipe:
            self.heartbeat(WORKER_TTL_S, pipeline=pipe)
            pipe.hexists(self.key, "birth")
            if not pipe.execute()[-1]:  # it had expired: this process stood still, or Redis forgot
                pipe.hset(self.key, mapping=self.serialize() | {"state": self.get_state()})
                worker_registration.register(self, pipe)
                pipe.execute()
        assignment = self._beating
        if assignment is not None and not assignment.lost.is_set():
            stamp = utcformat(datetime.now(UTC))
            if not self._runtime.leases.beat(assignment.run, stamp=stamp):
                assignment.lost.set()

    # -- closing -------------------------------------------------------------------------------------------

    def handle_execution_ended(self, job: RQJob, queue: Queue, heartbeat_ttl: int) -> None:
        """Note the time; no beat, which could bring back a record that was deleted meanwhile."""
        job.ended_at = datetime.now(UTC)

    def handle_job_success(self, job: RQJob, queue: Queue, started_job_registry: Any) -> None:
        """Record the end, if the run still holds the job."""

        def record(pipe: Pipeline) -> None:
            self.increment_successful_job_count(pipe)
            job._handle_success(self.default_result_ttl, pipeline=pipe, worker_name=self.name)
            job.cleanup(self.default_result_ttl, pipeline=pipe, remove_from_queue=False)

        self._close(job, record)

    def handle_job_failure(
        self, job: RQJob, queue: Queue, started_job_registry: Any = None, exc_string: str = ""
    ) -> None:
        """Record the failure, if the run still holds the job. Never tried again: losses are the janitor's."""

        def record(pipe: Pipeline) -> None:
            self.increment_failed_job_count(pipe)
            job.set_status(JobStatus.FAILED, pipeline=pipe)
            job._handle_failure(exc_string, pipeline=pipe, worker_name=self.name)

        self._close(job, record)

    def _close(self, job: RQJob, record: Callable[[Pipeline], None]) -> None:
        """In one transaction, only if the lease is there: ``record`` the end, and end the lease."""
        assert self._assignment is not None
        run_key = self._assignment.run.key
        with self.connection.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(run_key)  # type: ignore[no-untyped-call]
                    if not pipe.exists(run_key):
                        break
                    pipe.multi()
                    if job.started_at and job.ended_at:
                        self.increment_total_working_time(job.ended_at - job.started_at, pipe)
                    record(pipe)
                    self.cleanup_execution(job, pipe)
                    pipe.execute()
                    break
                except WatchError:  # a beat came in between
                    continue
        self.set_current_job_id(None)
        self._assignment = self._beating = self.execution = None

    def cleanup_execution(self, job: RQJob, pipeline: Pipeline) -> None:
        """End the lease in ``pipeline``. RQ forgets the run already here, so that a repeat would keep it."""
        assert self.execution is not None
        self.execution.delete(job=job, pipeline=pipeline)

    def handle_exception(self, job: RQJob, *exc_info: Any) -> None:
        """Log what ended a job: a line where it was foreseen, the traceback where not."""
        error = exc_info[1]
        if isinstance(error, LeaseLost):
            _log.info("%s", error)
        elif isinstance(error, ProxyGradError):
            _log.warning("job %s failed: %s: %s", job.id, error.code, error)
        elif isinstance(error, RedisError):
            _log.warning("job %s is left to the janitors: %s", job.id, error)
            raise StopRequested  # without another beat, and without a record that might get through
        else:
            _log.error("job %s failed unexpectedly", job.id, exc_info=error or sys.exc_info())


class Slots:
    """``count`` slots of one process; start, then stop."""

    def __init__(self, runtime: Runtime, count: int) -> None:
        self._runtime = runtime
        self._slots: dict[int, Slot] = {}
        self._threads = [
            threading.Thread(target=self._occupy, args=(number,), name=f"slot-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Begin to take work."""
        for name in ("rq.worker", "rq.job", "rq.queue", "rq.registry"):
            logging.getLogger(name).setLevel(logging.WARNING)  # RQ tells of every job, several times
        for thread in self._threads:
            thread.start()

    def beat(self) -> None:
        """Say that all slots live; to be called every `workers.leases.BEAT_S` seconds."""
        for slot in list(self._slots.values()):
            slot.beat()

    def join(self, timeout_s: float) -> bool:
        """Wait for the slots to end after `Runtime.stopping` was set; True when all have."""
        deadline = datetime.now(UTC).timestamp() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - datetime.now(UTC).timestamp()))
        return not any(thread.is_alive() for thread in self._threads)

    def _occupy(self, number: int) -> None:
        """Keep one slot at work: RQ's loop ends on any error of Redis that outlasts the retries."""
        life = 0
        while not self._runtime.stopping.is_set():
            try:
                slot = Slot(f"{self._runtime.worker}.{number}" + (f".{life}" if life else ""), self._runtime)
                self._slots[number] = slot
                slot.work(logging_level="WARNING")
            except Exception as error:
                _log.warning("slot %d ended: %s", number, error)
            finally:
                self._slots.pop(number, None)  # and with it the beat for what it held
            if not self._runtime.stopping.wait(RESTART_PAUSE_S):
                _log.warning("slot %d starts again", number)
            life += 1
