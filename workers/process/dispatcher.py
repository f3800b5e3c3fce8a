"""The dispatcher: one thread that takes jobs off the queue for all slots of a process.

It asks Redis when a slot is free and something may be there: it was woken, the last look left something, or
it has not looked for a while. While all slots are busy it asks nothing. What it has taken is in the list of
popped jobs until a slot takes the lease; what no slot comes for goes back to its turn when the process ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from redis.exceptions import RedisError

from workers.broker import rq_names
from workers.execution.context import WorkerContext
from workers.jobs.kinds.registry import offered
from workers.queue.fair_queue import FairQueue

#: A wake-up that got lost costs no more than this; so does `rq resume`, which wakes nobody.
LOOK_S = 1.0

_log = logging.getLogger(__name__)


class Dispatcher(threading.Thread):
    """Hands job ids to slots. `start` it, `wake` it when work may have come, and `stop` it."""

    def __init__(self, runtime: WorkerContext) -> None:
        super().__init__(name="dispatcher", daemon=True)
        self._runtime = runtime
        self._ready = FairQueue(runtime.redis)
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # the dispatcher waits here
        self._handed = threading.Condition(lock)  # the slots wait here
        self._popped: deque[str] = deque()
        self._free = 0
        self._may_be_there = True
        self._look_s = 0.0
        self._stopped = False
        self._trouble = ""

    def wake(self, model: str | None = None) -> None:
        """There may be work, of ``model`` or any."""
        names = self._names() if model is not None else None
        if names is not None and model not in names:
            return
        with self._changed:
            self._may_be_there = True
            self._changed.notify()

    def take(self, timeout_s: float | None = None) -> str | None:
        """A slot waits for its next job; None when there is none within ``timeout_s``, or after `stop`."""
        with self._handed:
            self._free += 1
            self._changed.notify()
            try:
                self._handed.wait_for(lambda: self._popped or self._stopped, timeout_s)
            finally:
                self._free -= 1
            return self._popped.popleft() if self._popped and not self._stopped else None

    def stop(self) -> None:
        """Hand out nothing more; what is in hand goes back to the queue."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            self._handed.notify_all()

    def run(self) -> None:
        """Hand out jobs until `stop`; then put the rest back into the queue."""
        while count := self._wanted():
            try:
                self._dispatch(count)
            except Exception as error:  # of Redis, mostly; nobody else would hand out jobs
                self._complain(error)
        with self._changed:
            left = list(self._popped)
            self._popped.clear()
        self._return(left)

    def _wanted(self) -> int:
        """Wait until it is time to look for work: for how many slots; 0 once stopped."""
        with self._changed:
            while not self._stopped:
                count, now_s = self._free - len(self._popped), time.monotonic()
                if count > 0 and (self._may_be_there or now_s >= self._look_s):
                    self._may_be_there = False
                    self._look_s = now_s + LOOK_S
                    return count
                self._changed.wait(self._look_s - now_s if count > 0 else None)
            return 0

    def _dispatch(self, count: int) -> None:
        if self._runtime.engine.stalled_s >= self._runtime.stall_s:
            return  # what it would take, perhaps what made the engine hang, could not begin
        if self._runtime.redis.exists(rq_names.SUSPENDED_KEY):
            return
        job_ids = self._ready.pop(self._names(), count)
        self._trouble = ""
        with self._changed:
            if not self._stopped:
                self._popped.extend(job_ids)
                self._may_be_there = self._may_be_there or len(job_ids) == count
                self._handed.notify(len(job_ids))
                return
        self._return(job_ids)

    def _return(self, job_ids: Sequence[str]) -> None:
        try:
            if job_ids:
                returned = self._ready.put_back(job_ids[::-1])  # each goes before the one before
                _log.info("%d jobs go back to the queue before they began", returned)
        except RedisError as error:
            _log.warning("%d popped jobs are left to the janitors: %s", len(job_ids), error)

    def _names(self) -> list[str]:
        """What is offered here now: the models that are ready, for every kind of job."""
        served = self._runtime.models.served
        return offered((model.name, model.info) for model in served if model.info is not None)

    def _complain(self, error: Exception) -> None:
        """Once for the same trouble; the next look is at its usual time."""
        if str(error) != self._trouble:
            _log.warning("dispatcher: %s", error)
        self._trouble = str(error)
