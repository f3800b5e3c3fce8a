"""RQ's records of its workers, one for each slot, written in a way that works in a full Redis too.

RQ's own plain commands for this are refused while Redis is full, and end the worker's loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import redis

from workers.broker import queue
from workers.broker.scripts import Script

#: `rq info` stops listing a killed worker after this long.
WORKER_TTL_S = 30

_ENROLL = f"""
local worker, ttl_s = ARGV[3], ARGV[4]
redis.call('DEL', worker)
redis.call('HSET', worker, unpack(ARGV, 5))
redis.call('EXPIRE', worker, ttl_s)
redis.call('SADD', '{queue.WORKERS_KEYS[0]}', worker)
redis.call('SADD', '{queue.WORKERS_KEYS[1]}', worker)
"""

_NOTE = """
local worker, ttl_s = ARGV[3], ARGV[4]
if #ARGV > 4 then redis.call('HSET', worker, unpack(ARGV, 5)) end
if ttl_s ~= '' then redis.call('EXPIRE', worker, ttl_s) end
"""

_BEAT = """
local ttl_s, forgotten = ARGV[3], {}
for _, worker in ipairs({unpack(ARGV, 4)}) do
  if redis.call('HEXISTS', worker, 'birth') == 1 then
    redis.call('HSET', worker, 'last_heartbeat', STAMP)
    redis.call('EXPIRE', worker, ttl_s)
  else
    forgotten[#forgotten + 1] = worker
  end
end
return forgotten
"""

Fields = Mapping[str, str | int | float]


class RQRegistration:
    """RQ's workers, by the keys of their records. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._enroll = Script(redis, _ENROLL, "allow-oom")
        self._note = Script(redis, _NOTE, "allow-oom")
        self._beat = Script(redis, _BEAT, "allow-oom")

    def enroll(self, worker: str, fields: Fields) -> None:
        """Make a worker known, as RQ does at its start."""
        self._enroll(worker, WORKER_TTL_S, *_flat(fields))

    def note(self, worker: str, fields: Fields, *, ttl_s: int | None = None) -> None:
        """Set fields of its record, and let it be forgotten after ``ttl_s`` seconds."""
        self._note(worker, "" if ttl_s is None else ttl_s, *_flat(fields))

    def beat(self, workers: Sequence[str]) -> list[str]:
        """Say that these live; those that Redis has forgotten meanwhile, to be enrolled again."""
        if not workers:
            return []
        return [worker.decode() for worker in self._beat(WORKER_TTL_S, *workers)]


def _flat(fields: Fields) -> list[str | int | float]:
    return [part for pair in fields.items() for part in pair]
