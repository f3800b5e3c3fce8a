"""The batch repository: submits, looks up, cancels and forgets batches.

::

    running ──► succeeded | failed | canceled
    failed | canceled | succeeded ──► running    requested again: units without a result are queued again

A batch is a record in Redis that names its units; workers put them into the queue a window at a time
(`workers.batches.expander`), and every change of one of its jobs is counted in the same step
(``workers/lua/lib/batches.lua``). The results are those of single requests, shared by content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, cast

import redis
from redis.exceptions import ResponseError

from proxygrad.protocol.requests import ANONYMOUS, JobOptions
from workers.batches.batch import BatchRecord, ResolvedBatch, Unit, limits_json
from workers.broker import keys
from workers.broker.limits import MAX_WEBHOOKS
from workers.broker.scripts import Script
from workers.broker.time_index import IndexEntry, older
from workers.errors import TooManyBatches, TooManyWebhooks, UnknownKind, UnreadableRecord
from workers.jobs.requests import Limits

__all__ = [
    "BatchRecord",
    "Batches",
    "ResolvedBatch",
    "Unit",
]

#: Units of one batch that wait in the queue at a time: enough that a process of 256 slots finds its next job
#: there, few enough that a batch of any size costs the queue no more than a busy caller.
WINDOW = 256
#: Batches of one caller that have not ended.
MOST_RUNNING = 100
#: Jobs that one script cancels.
_AT_ONCE = 50
#: Marks of units read in one round trip.
_PAGE = 1000

Novelty = Literal["new", "known"]


class Batches:
    """Submit, look up, cancel and forget. Safe to share between threads."""

    def __init__(self, redis: redis.Redis, window: int = WINDOW) -> None:
        self._redis = redis
        self._window = window
        self._submit = Script(redis, "batches/submit", decode="text")
        self._stop = Script(redis, "batches/stop")
        self._withdraw = Script(redis, "batches/withdraw")
        self._forget = Script(redis, "batches/forget")

    def submit(
        self, request: ResolvedBatch, options: JobOptions, *, caller: str = ANONYMOUS, limits: Limits
    ) -> tuple[BatchRecord, Novelty]:
        """The batch, and whether it was new.

        Of one that was requested before, units that failed or were canceled are queued again; where it ended
        longer ago than results are pinned, all are looked up again. ``limits``: those of the caller, of
        which a batch leaves some to single requests. Raises `TooManyBatches`, `TooManyWebhooks`, and
        redis' `OutOfMemoryError`.
        """
        batch_id = request.identity(caller)
        fields: dict[str, str | int] = {
            **request.to_fields(),
            "priority": options.priority,
            "limits": limits_json(limits),
            "window": self._window,
        }
        flat = [part for pair in fields.items() for part in pair]
        deadline_s = "" if options.deadline_s is None else options.deadline_s
        word = self._submit(batch_id, caller, MOST_RUNNING, deadline_s, options.webhook or "", *flat)
        if word == "hooks":
            raise TooManyWebhooks(batch_id, MAX_WEBHOOKS)
        if word == "too_many":
            raise TooManyBatches(MOST_RUNNING, caller)
        batch = self.fetch(batch_id)
        if batch is None:  # somebody has deleted it since
            return self.submit(request, options, caller=caller, limits=limits)
        return batch, cast(Novelty, word)

    def fetch(self, batch_id: str) -> BatchRecord | None:
        """The batch of that id as it stands, or None. Raises `UnknownKind` and `UnreadableRecord`."""
        fields = cast(dict[bytes, bytes], self._redis.hgetall(keys.batch_key(batch_id)))
        try:
            return BatchRecord.from_fields(batch_id, fields) if b"state" in fields else None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnreadableRecord("batch", batch_id, error) from error

    def owner(self, batch_id: str) -> str | None:
        """The caller of a batch whose record cannot be read; None where there is none."""
        caller = self._redis.hget(keys.batch_key(batch_id), "caller")
        return None if caller is None else cast(bytes, caller).decode(errors="replace")

    def units(self, batch: BatchRecord, numbers: Sequence[int]) -> list[Unit]:
        """Those units of the batch."""
        if not numbers:
            return []
        marks = cast(
            "list[bytes | None]", self._redis.hmget(keys.units_key(batch.id), [str(each) for each in numbers])
        )
        return [batch.unit(number, mark) for number, mark in zip(numbers, marks, strict=True)]

    def page(
        self, batch: BatchRecord, start: int, most: int, fits: Callable[[Unit], bool]
    ) -> tuple[list[Unit], int | None]:
        """Of the units from position ``start``, ``most`` that fit; and the position to go on from."""
        units: list[Unit] = []
        for position, unit in self._from(batch, start):
            if len(units) == most:
                return units, position
            if fits(unit):
                units.append(unit)
        return units, None

    def _from(self, batch: BatchRecord, start: int) -> Iterator[tuple[int, Unit]]:
        for first in range(start, len(batch.units), _PAGE):
            yield from enumerate(self.units(batch, batch.units[first : first + _PAGE]), first)

    def recent(
        self,
        last: IndexEntry | None,
        most: int,
        looked_at: int,
        fits: Callable[[BatchRecord], bool],
        *,
        caller: str | None,
        unreadable: Callable[[str], None] = lambda batch_id: None,
    ) -> tuple[list[BatchRecord], IndexEntry | None]:
        """Of those older than ``last``, the newest first, ``most`` that fit; and where to go on.

        At most ``looked_at`` are looked at. ``caller``: whose; None: of all. ``unreadable`` is called with
        the id of each on the way that cannot be read.
        """
        key = keys.BATCHES_KEY if caller is None else keys.batches_of_key(caller)
        batches: list[BatchRecord] = []
        for entry in older(self._redis, key, last):
            looked_at -= 1
            try:
                batch = self.fetch(entry.job_id)
            except UnknownKind:  # a newer version lists it
                batch = None
            except (UnreadableRecord, ResponseError):
                unreadable(entry.job_id)
                batch = None
            else:
                if batch is None:
                    self._redis.zrem(key, entry.job_id)
            if batch is not None and fits(batch):
                batches.append(batch)
            if len(batches) == most or not looked_at:
                return batches, entry
        return batches, None

    def cancel(self, batch_id: str) -> None:
        """Put no more of it into the queue, and withdraw its caller from what waits or runs.

        What others, or other batches of the caller, want goes on. Harmless where it has ended. A worker
        finishes what was begun.
        """
        if self._stop(batch_id):
            self.withdraw(batch_id)

    def withdraw(self, batch_id: str) -> None:
        """The second half of `cancel`: let go of what is in the queue or running."""
        jobs = [job_id.decode() for job_id in cast(list[bytes], self._redis.hkeys(keys.open_key(batch_id)))]
        for first in range(0, len(jobs), _AT_ONCE):
            self._withdraw(batch_id, *jobs[first : first + _AT_ONCE])
        self._redis.hdel(keys.batch_key(batch_id), "cancel_pending")

    def forget(self, batch_id: str) -> bool:
        """Cancel it, and remove all of it but the results; whether there was one. No webhook is delivered."""
        self._redis.delete(keys.subscriptions_key(batch_id))
        self.cancel(batch_id)
        return bool(self._forget(batch_id))
