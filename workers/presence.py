"""That a slot lives, in RQ's records of its workers: one script a round for all slots of a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import redis

from workers import queue
from workers.scripts import Script

#: `rq info` stops listing a killed worker after this long.
WORKER_TTL_S = 30

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

_ENROL = f"""
local worker, ttl_s = ARGV[3], ARGV[4]
redis.call('DEL', worker)
redis.call('HSET', worker, unpack(ARGV, 5))
redis.call('EXPIRE', worker, ttl_s)
redis.call('SADD', '{queue.WORKERS_KEYS[0]}', worker)
redis.call('SADD', '{queue.WORKERS_KEYS[1]}', worker)
"""


class Presence:
    """Workers as RQ knows them, by key. Works in a full Redis too. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._beat = Script(redis, _BEAT, "allow-oom")
        self._enrol = Script(redis, _ENROL, "allow-oom")

    def beat(self, workers: Sequence[str]) -> list[str]:
        """Say that these live; those that Redis has forgotten meanwhile, to be enrolled again."""
        if not workers:
            return []
        return [worker.decode() for worker in self._beat(WORKER_TTL_S, *workers)]

    def enrol(self, worker: str, fields: Mapping[str, str | int | float]) -> None:
        """Make a worker known, as RQ does at its start."""
        flat = [part for pair in fields.items() for part in pair]
        self._enrol(worker, WORKER_TTL_S, *flat)
