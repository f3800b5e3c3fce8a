"""A run of a job in this process: what it is doing, and what is wanted of it by now.

The slot's thread does the work. The process's other threads tell it here that its lease is lost, that nobody
wants the job any more, or that its deadline moved; all reach the engine at once, through the ticket.

RQ calls its task with plain arguments; the slot says here, per thread, on whose behalf.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from proxygrad.errors import ModelError, RenderCanceled
from workers.errors import GivenBack, LeaseLost
from workers.execution.context import FutureProtocol, WorkerContext
from workers.queue.leases import Run

Phase = Literal["reading", "loading", "computing", "storing"]

#: Longest a run may be at one thing before its lease is left to end, in seconds; `computing` has no limit of
#: its own, because there the engine's progress counts (`workers.process.heartbeat`). Loading a model may mean
#: downloading it: half a gigabyte at 1 MB/s takes 9 minutes. Of one read or write obstore gives up after 180
#: s of retries (`retry_timeout` of object_store's `RetryConfig`).
LIMITS_S: Mapping[Phase, float] = {"reading": 300.0, "loading": 900.0, "storing": 300.0}


class JobRun:
    """One run in the slot called ``slot``. ``lost`` and ``canceled`` are set by other threads, for good.

    ``checkpoints`` are the paths of what the store keeps for this job until its end.
    """

    def __init__(self, run: Run, slot: str, runtime: WorkerContext) -> None:
        self.run = run
        self.slot = slot
        self.runtime = runtime
        self.lost = threading.Event()
        self.canceled = threading.Event()
        self.checkpoints: set[str] = set()
        self.phase: Phase = "reading"
        self._since_s = time.monotonic()
        self._lock = threading.Lock()
        self._ticket: FutureProtocol | None = None
        self._deadline_at: float | None = None

    # -- the slot's thread ---------------------------------------------------------------------------------

    def enter(self, phase: Phase) -> None:
        """Begin with something; its clock starts now."""
        self._since_s = time.monotonic()
        self.phase = phase

    def watch(self, ticket: FutureProtocol, deadline_at: float | None) -> None:
        """Pass on to ``ticket`` what the run is told and was told; ``deadline_at``: what it knows."""
        with self._lock:
            self._ticket = ticket
            stopped = self.lost.is_set() or self.canceled.is_set()
            moved = self._deadline_at != deadline_at
        if stopped:
            ticket.cancel()
        if moved:
            ticket.extend_deadline(self.deadline_s(self._deadline_at))

    def stay(self) -> None:
        """Return as long as the run may speak for its job; raises `LeaseLost`."""
        if self.lost.is_set():
            raise LeaseLost(f"job {self.run.job_id}: the lease of run {self.run.execution_id} has ended")

    def proceed(self) -> None:
        """Return while the run may go on; for between two steps of a computation.

        Raises `LeaseLost`, `RenderCanceled`, and `GivenBack` where the process ends.
        """
        self.stay()
        if self.canceled.is_set():
            raise RenderCanceled("canceled before its first step")
        if self.runtime.stopping.is_set():
            self.give_back()

    def give_back(self, why: str = "the worker stops") -> None:
        """Let the job wait again in its turn. Raises `GivenBack`, or `LeaseLost` where it was lost before."""
        if not self.runtime.leases.give_back(self.run):
            self.lost.set()
        self.stay()
        raise GivenBack(f"job {self.run.job_id} is back in the queue: {why}")

    def pass_on(self, why: ModelError) -> None:
        """Leave the job to a worker that has the weights it was requested of, where one lives.

        Raises `GivenBack` then; returns where the job is to fail for ``why``.
        """
        runtime = self.runtime
        if runtime.leases.pass_on(self.run, runtime.worker):
            raise GivenBack(f"job {self.run.job_id} is left to another worker: {why}")
        self.stay()

    # -- any thread ----------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Somebody wants the job stopped."""
        self.canceled.set()
        self._stop()

    def lose(self) -> None:
        """The lease has ended: nothing of this run counts any more."""
        self.lost.set()
        self._stop()

    def set_deadline(self, deadline_at: float | None) -> None:
        """The deadline as it is now, in seconds since 1970 on Redis' clock."""
        with self._lock:
            moved, self._deadline_at = deadline_at != self._deadline_at, deadline_at
            ticket = self._ticket
        if moved and ticket is not None:
            ticket.extend_deadline(self.deadline_s(deadline_at))

    def deadline_s(self, deadline_at: float | None) -> float | None:
        """Seconds from now to a time on Redis' clock."""
        return None if deadline_at is None else deadline_at - self.runtime.now()

    @property
    def deadline_at(self) -> float | None:
        """The deadline as this run knows it, in seconds since 1970 on Redis' clock."""
        return self._deadline_at

    @property
    def overdue(self) -> bool:
        """Whether it has been at one thing for longer than its limit."""
        limit_s = LIMITS_S.get(self.phase)
        return limit_s is not None and time.monotonic() - self._since_s > limit_s

    def _stop(self) -> None:
        with self._lock:
            ticket = self._ticket
        if ticket is not None:
            ticket.cancel()


_current: ContextVar[JobRun] = ContextVar("assignment")


@contextmanager
def assigned(assignment: JobRun) -> Iterator[None]:
    """Within, `current` of this thread is ``assignment``."""
    token = _current.set(assignment)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> JobRun:
    """On whose behalf this thread works. Raises `LookupError` outside a slot."""
    return _current.get()
