"""The fair queue: pops the next jobs for a worker, and counts how many are before a given one.

The order is start-time fair queueing among callers and batches (``workers/lua/lib/fair_queue.lua``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis

from workers.broker.scripts import Script


class FairQueue:
    """The jobs that wait, in their order. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._pop = Script(redis, "queue/pop")
        self._put_back = Script(redis, "queue/put_back")
        self._position = Script(redis, "queue/position")

    def pop(self, models: Sequence[str] | None, count: int) -> list[str]:
        """The next jobs, at most ``count``, of ``models`` (None: of any), in the order they should start.

        They stand in RQ's intermediate list then, until `Leases.take`, `put_back` or a janitor. A job whose
        deadline has passed fails, and one whose entry in RQ is gone is dropped, instead of being returned.
        """
        popped: list[str] = []
        while models is None or models:
            done, ids = cast(tuple[int, list[bytes]], self._pop(count - len(popped), *(models or ())))
            popped += [job_id.decode() for job_id in ids]
            if done:
                break
        return popped

    def put_back(self, job_ids: Sequence[str]) -> int:
        """Put jobs that were popped, and not taken, back to their turn; the number of them."""
        return int(self._put_back(*job_ids)) if job_ids else 0

    def position(self, job_id: str) -> int | None:
        """How many jobs are before this one, 0 for the next; None when it does not wait."""
        rank = int(self._position(job_id))
        return None if rank < 0 else rank
