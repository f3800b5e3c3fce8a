"""Who asked for a job: one question is one job, however many callers share it, and none learns of the others.

A hash beside the job's record, caller -> nothing while it wants the answer, or when it withdrew; and for each
caller the other way round, what it asked for lately, to be listed. They are kept as long as the record is.
The scripts that submit, cancel and forget write them. Where callers are not told apart, nobody is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import redis

from workers.broker import queue
from workers.broker.pipeline import RedisCommand
from workers.broker.scripts import Script

_ADD = """
note_asker(ARGV[3], ARGV[4], true)
"""


@dataclass(frozen=True)
class Requester:
    """One caller's interest in a job. ``withdrawn_at``: when it canceled, in seconds since 1970."""

    withdrawn_at: float | None = None


class Requesters:
    """Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._add = Script(redis, _ADD, "allow-oom")

    def add(self, job_id: str, caller: str) -> None:
        """Note for as long as records are kept that ``caller`` asked for what the store answers."""
        self._add(job_id, caller)

    def asked(self, job_id: str, caller: str) -> RedisCommand[Requester | None]:
        """Whether ``caller`` asked for the job, and withdrew; None when it never did, or long ago."""
        return RedisCommand(lambda client: client.hget(queue.askers_key(job_id), caller), _asked)


def _asked(mark: bytes | None) -> Requester | None:
    if mark is None:
        return None
    return Requester(float(mark) if mark else None)
