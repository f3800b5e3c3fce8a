"""What RQ keeps about its workers, written in a way that works in a full Redis too."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from workers.scripts import Script

_NOTE = """
local worker, ttl_s = ARGV[3], ARGV[4]
if #ARGV > 4 then redis.call('HSET', worker, unpack(ARGV, 5)) end
if ttl_s ~= '' then redis.call('EXPIRE', worker, ttl_s) end
"""


class Register:
    """Notes about RQ's workers. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._note = Script(redis, _NOTE, "allow-oom")

    def note(
        self, worker_key: str, fields: Mapping[str, str | int | float], *, ttl_s: int | None = None
    ) -> None:
        """Set fields of the worker's record, and let it be forgotten after ``ttl_s`` seconds.

        RQ's own plain commands for this are refused while Redis is full, and end the worker's loop.
        """
        flat = [part for pair in fields.items() for part in pair]
        self._note(worker_key, "" if ttl_s is None else ttl_s, *flat)
