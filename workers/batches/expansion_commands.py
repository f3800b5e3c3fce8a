"""Commands of the expander: the atomic steps of expanding a batch into jobs (`workers.batches.expander`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis

from workers.broker.scripts import Script

#: The jobs of a batch are compared with its counts this often, in case the end of one was missed: a worker of
#: an earlier version, or other clients of Redis.
COMPARE_S = 30.0
#: Batches that one look compares, those first that were not for longest: up to 256 jobs each.
MOST_COMPARED = 10
#: Results of a batch that still runs are pinned anew this often: a pin is for an hour.
PIN_EVERY_S = 1200.0


class ExpansionCommands:
    """The commands. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._find_due = Script(redis, "batches/find_due")
        self._claim = Script(redis, "batches/claim")
        self._release = Script(redis, "batches/release")
        self._next = Script(redis, "batches/next_units")
        self._link = Script(redis, "batches/link_jobs")
        self._align = Script(redis, "batches/align")
        self._pass_on = Script(redis, "batches/pass_on")
        self._drop = Script(redis, "batches/drop_rest")
        self._pins_due = Script(redis, "batches/pins_due")

    def look(self, every_s: float) -> list[str]:
        """Find what may go on, and end what is overdue, unless another worker has within ``every_s``.

        Batches whose cancellation was begun and not ended.
        """
        found = self._find_due(every_s, COMPARE_S, MOST_COMPARED, PIN_EVERY_S)
        return [each.decode() for each in cast(list[bytes], found)]

    def claim(self, batch_id: str, token: str, claim_s: int) -> bool:
        """Whether the batch is this worker's for so long; no other one's, and running."""
        return bool(self._claim(batch_id, token, claim_s))

    def release(self, batch_id: str, token: str, rest_s: float) -> None:
        """Let go of the claim, and let the batch rest for so long unless a unit of it ends."""
        self._release(batch_id, token, rest_s)

    def next(self, batch_id: str, token: str, claim_s: int, most: int) -> list[int]:
        """Take units in hand, and hold the claim anew; none where there is no room, or the claim is lost."""
        return [int(each) for each in cast(list[bytes], self._next(batch_id, token, claim_s, most))]

    def link(self, batch_id: str, token: str, jobs: Sequence[tuple[int, str]]) -> bool:
        """Count units as queued, and follow their jobs from now on; False where nobody wants that."""
        return bool(self._link(batch_id, token, *(word for pair in jobs for word in pair)))

    def align(
        self,
        batch_id: str,
        token: str,
        caller: str,
        submitted: Sequence[tuple[str | int, ...]],
        refused: Sequence[int],
    ) -> None:
        """Count units as they stand: number, job, state and detail of each that was submitted."""
        words = [word for each in submitted for word in each]
        self._align(batch_id, token, caller, len(submitted), *words, *refused)

    def pass_on(self, batch_id: str, capability: str) -> bool:
        """Leave the batch to workers that offer ``capability``; False where none lives."""
        return bool(self._pass_on(batch_id, capability))

    def drop(self, batch_id: str, code: str, detail: str) -> None:
        """Let all units fail that were not queued."""
        self._drop(batch_id, code, detail)

    def pins_due(self, batch_id: str, every_s: float) -> bool:
        """Whether results are to be pinned anew; says so once in that time."""
        return bool(self._pins_due(batch_id, every_s))
