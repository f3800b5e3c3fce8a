"""Everything that one caller has under way: canceled at once, as when its key is revoked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import redis

from workers.batches.repository import Batches
from workers.broker import keys
from workers.jobs.commands import Cancel

_OPEN = (b"queued", b"running")
#: Records looked at in one round trip.
_PAGE = 500


@dataclass(frozen=True)
class CanceledWork:
    """How many jobs and batches of a caller were canceled. A batch's units count as its own jobs do."""

    jobs: int
    batches: int


def cancel_all(redis: redis.Redis, caller: str) -> CanceledWork:
    """Cancel the batches and jobs of ``caller`` that wait or run; what others requested too goes on for them.

    A job that runs is asked to stop. What the caller submits meanwhile may be missed: revoke its key before.
    """
    batches = Batches(redis)
    running = cast(set[bytes], redis.smembers(f"{keys.RUNNING_BATCHES_OF_PREFIX}{caller}"))
    jobs = _open_jobs(redis, caller)
    for batch_id in running:
        batches.cancel(batch_id.decode())
    cancel = Cancel(redis)
    for job_id in _open_jobs(redis, caller):  # anew: those of batches are canceled
        cancel(job_id, caller)
    return CanceledWork(len(jobs), len(running))


def _open_jobs(redis: redis.Redis, caller: str) -> list[str]:
    """The jobs that the caller requested, and has not withdrawn from."""
    requested = cast(list[bytes], redis.zrange(keys.requested_key(caller), 0, -1))
    first = cast(set[bytes], redis.smembers(f"{keys.WAITING_PREFIX}{caller}"))  # without keys: those alone
    first |= cast(set[bytes], redis.smembers(keys.RUNNING_KEY))
    job_ids = [job_id.decode() for job_id in dict.fromkeys([*requested, *first])]
    return [
        job_id
        for start in range(0, len(job_ids), _PAGE)
        for job_id in _open_of(redis, caller, job_ids[start : start + _PAGE])
    ]


def _open_of(redis: redis.Redis, caller: str, job_ids: list[str]) -> list[str]:
    with redis.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hmget(keys.job_key(job_id), "state", "caller", "cancel_requested")
            pipe.hget(keys.requesters_key(job_id), caller)
        replies = pipe.execute(raise_on_error=False)  # a record that cannot be read is nobody's
    found = []
    for job_id, record, mark in zip(job_ids, replies[::2], replies[1::2], strict=True):
        if isinstance(record, Exception) or isinstance(mark, Exception):
            continue
        state, first, stopping = record
        wants = mark == b"" if mark is not None else first == caller.encode()
        if state in _OPEN and wants and stopping is None:
            found.append(job_id)
    return found
