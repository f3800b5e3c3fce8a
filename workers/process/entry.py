"""An entry of the queue as a worker takes it: the one task, and nothing that Redis could smuggle in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rq.job import Job as RQJob

from workers.broker import queue
from workers.execution.task import render
from workers.jobs.repository import Job


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
        if self.func_name != queue.TASK or self.instance is not None:
            raise PermissionError(f"job {self.id} names the task {self.func_name!r}; allowed: {queue.TASK}")
        return render
