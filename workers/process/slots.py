"""All slots of a process, and the dispatcher that finds their jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from workers.execution.context import WorkerContext
from workers.execution.run import JobRun
from workers.process.dispatcher import Dispatcher
from workers.process.rq_registration import RQRegistration
from workers.process.rq_worker import SlotWorker

#: Between an end of a slot that nobody asked for and its next start.
RESTART_PAUSE_S = 1.0

_log = logging.getLogger(__name__)


class SlotPool:
    """``count`` slots of one process: `start`, then, once `WorkerContext.stopping` is set, `stop`
    and `join`.
    """

    def __init__(self, runtime: WorkerContext, count: int) -> None:
        self.dispatcher = Dispatcher(runtime)
        self._runtime = runtime
        self._registration = RQRegistration(runtime.redis)
        self._slots: dict[int, SlotWorker] = {}
        self._threads = [
            threading.Thread(target=self._occupy, args=(number,), name=f"slot-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Begin to take work."""
        for name in ("rq.worker", "rq.job", "rq.queue", "rq.registry"):
            logging.getLogger(name).setLevel(logging.WARNING)  # RQ tells of every job, several times
        self.dispatcher.start()
        for thread in self._threads:
            thread.start()

    @property
    def live(self) -> list[SlotWorker]:
        """The slots that RQ should know of."""
        return [slot for slot in list(self._slots.values()) if slot.birth_date is not None]

    @property
    def assignments(self) -> list[JobRun]:
        """What runs."""
        runs = (slot.assignment for slot in list(self._slots.values()))
        return [run for run in runs if run is not None]

    def assignment(self, slot: str) -> JobRun | None:
        """What runs in the slot of that name."""
        return next((run for run in self.assignments if run.slot == slot), None)

    def stop(self) -> None:
        """Take nothing more. What is still loading its model is put back at once: nothing of it is lost."""
        self.dispatcher.stop()
        self.abandon([run for run in self.assignments if run.phase == "loading"])

    def join(self, timeout_s: float) -> bool:
        """Wait for the slots to end; True when all have."""
        until_s = time.monotonic() + timeout_s
        for thread in (self.dispatcher, *self._threads):
            if thread.ident is not None:
                thread.join(max(0.0, until_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def abandon(self, runs: Sequence[JobRun] | None = None) -> None:
        """Put jobs (by default all) back without waiting for their slots."""
        for run in self.assignments if runs is None else runs:
            try:
                if self._runtime.leases.give_back(run.run):
                    _log.info("job %s is back in the queue: the worker stops", run.run.job_id)
            except RedisError as error:
                _log.warning("job %s is left to the janitors: %s", run.run.job_id, error)
            run.lose()

    def _occupy(self, number: int) -> None:
        """Keep one slot at work: RQ's loop ends on any error of Redis that outlasts the retries."""
        life, stopping = 0, self._runtime.stopping
        while not stopping.is_set():
            try:
                name = f"{self._runtime.worker}.{number}" + (f".{life}" if life else "")
                slot = SlotWorker(name, self._runtime, self.dispatcher, self._registration)
                self._slots[number] = slot
                slot.work(logging_level="WARNING")
            except Exception as error:
                _log.warning("slot %d ended: %s", number, error)
            finally:
                self._slots.pop(number, None)  # and with it the beat for what it held
            if not stopping.wait(RESTART_PAUSE_S):
                _log.warning("slot %d starts again", number)
            life += 1

    def beat(self) -> None:
        """Say of all slots that they live."""
        slots = {slot.key: slot for slot in self.live}
        for key in self._registration.renew(list(slots)):
            slots[key].enroll()
