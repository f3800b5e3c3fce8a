"""The beat of a process: its slots live, its runs make progress. Two scripts, however many slots there are.

Only progress keeps a lease: of a run in the engine, the engine's; of one that loads a model or stores its
answer, its own within a limit (`workers.execution.run`). What hangs loses its job to another worker, and a
process that hangs ends, so that its supervisor starts another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from workers.execution.context import WorkerContext
from workers.execution.drain import FAULT_STATUS, end_now
from workers.execution.run import JobRun
from workers.process.slots import SlotPool
from workers.queue import leases
from workers.queue.janitor import Presence

#: Longest time for the last words of a process whose engine hangs.
LAST_WORDS_S = 2.0

_log = logging.getLogger(__name__)


class Heartbeat:
    """To be called, `round`, every `workers.queue.leases.BEAT_S` seconds until the slots have ended."""

    def __init__(self, runtime: WorkerContext, slots: SlotPool, end: Callable[[int], None] = end_now) -> None:
        self._runtime = runtime
        self._slots = slots
        self._end = end
        self._presence = Presence(runtime.redis)

    def round(self) -> None:
        """Renew the leases of runs that make progress; pass on cancellations and deadlines."""
        runs = [run for run in self._slots.assignments if not run.lost.is_set() and self._progresses(run)]
        for run, beat in zip(runs, self._runtime.leases.beat_all([run.run for run in runs]), strict=True):
            if not beat.held:
                run.lose()
                continue
            if beat.cancel:
                run.cancel()
            run.set_deadline(beat.deadline_at)
        self._slots.beat()
        self._presence.renew(self._runtime.worker)
        if self._runtime.engine.stalled_s >= self._runtime.stall_s + leases.LEASE_S:
            self._give_up()

    def _progresses(self, run: JobRun) -> bool:
        if run.phase == "computing":
            return self._runtime.engine.stalled_s < self._runtime.stall_s
        if run.overdue and not self._runtime.stopping.is_set():
            fault = f"job {run.run.job_id} has been {run.phase} for too long"
            _log.error("%s; its lease is left to end, and so does this worker", fault)
            self._runtime.drain.begin(fault)
        return not run.overdue

    def _give_up(self) -> None:
        """The engine hangs, and its runs have lost their leases: put back the others, and end."""
        _log.critical(
            "the engine has finished nothing for %.0f s (PROXYGRAD_STALL_S: %g): exit with status %d",
            self._runtime.engine.stalled_s,
            self._runtime.stall_s,
            FAULT_STATUS,
        )
        farewell = threading.Thread(target=self._say_farewell, daemon=True)
        farewell.start()
        farewell.join(LAST_WORDS_S)
        self._end(FAULT_STATUS)

    def _say_farewell(self) -> None:
        self._runtime.catalog_entry.withdraw()
        self._slots.stop()
        self._slots.abandon([run for run in self._slots.assignments if run.phase != "computing"])
