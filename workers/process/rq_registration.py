"""RQ's records of its workers, one for each slot, written in a way that works in a full Redis too.

RQ's own plain commands for this are refused while Redis is full, and end the worker's loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import redis

from workers.broker.scripts import Script

#: `rq info` stops listing a killed worker after this long.
WORKER_TTL_S = 30

Fields = Mapping[str, str | int | float]


class RQRegistration:
    """RQ's workers, by the keys of their records. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._enroll = Script(redis, "rq/enroll_worker")
        self._update = Script(redis, "rq/update_worker")
        self._renew = Script(redis, "rq/renew_workers")

    def enroll(self, worker: str, fields: Fields) -> None:
        """Register a worker, as RQ does at its start."""
        self._enroll(worker, WORKER_TTL_S, *_flat(fields))

    def update(self, worker: str, fields: Fields, *, ttl_s: int | None = None) -> None:
        """Set fields of its record, and let it be forgotten after ``ttl_s`` seconds."""
        self._update(worker, "" if ttl_s is None else ttl_s, *_flat(fields))

    def renew(self, workers: Sequence[str]) -> list[str]:
        """Renew the records of these; those that Redis has forgotten meanwhile, to be enrolled again."""
        if not workers:
            return []
        return [worker.decode() for worker in self._renew(WORKER_TTL_S, *workers)]


def _flat(fields: Fields) -> list[str | int | float]:
    return [part for pair in fields.items() for part in pair]
