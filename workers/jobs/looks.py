"""How a job stands, in one round trip: its record, its place in line, and the promise of its answer.

The record of a job that succeeded does not change any more until it is gone or replaced, and is most of what
is read. So the last of them are kept as they were read, and Redis is asked whether the record still is the
one that ended at that moment: it answers for every look, and sends the record where it is another.
"""

from __future__ import annotations

import redis

from workers.broker.pipeline import RedisCommand
from workers.broker.queue import FORGOTTEN_KEY
from workers.broker.scripts import Script
from workers.cache import LRUCache
from workers.jobs.records import Job
from workers.queue.fair_queue import POSITION
from workers.storage import pins
from workers.storage.pins import claim_key, pin_key

#: Answers that are kept, those looked at last; one takes 10 to 100 KB.
MOST_KEPT = 256

# In a full Redis too: what is there is answered, and a pin is small and short.
_LOOK = f"""
local id, known_end, asked_by, pin_s = unpack(ARGV, 3, 6)
local state, finished_at = unpack(redis.call('HMGET', own_key(id), 'state', 'finished_at'))
if not state then return {{0, {{}}}} end
if state ~= 'succeeded' then return {{0, standing(id)}} end
local promised = 1 - redis.call('EXISTS', '{claim_key("")}' .. id)
if promised == 1 then
  redis.call('SET', '{pin_key("")}' .. id, 1, 'EX', pin_s)
  if asked_by ~= '' then
    redis.call('SREM', '{FORGOTTEN_KEY}', id)
    note_asker(id, asked_by, true)
  end
end
return {{promised, finished_at ~= known_end and redis.call('HGETALL', own_key(id)) or false}}
"""


class StatusQuery:
    """Looks at jobs. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._look = Script(redis, POSITION + _LOOK, "allow-oom")
        self._kept: LRUCache[str, tuple[bytes, Job]] = LRUCache(MOST_KEPT)

    def __call__(self, job_id: str, *, asked_by: str | None = None) -> RedisCommand[tuple[Job | None, bool]]:
        """The job as it stands, None where it has no record; and whether its answer is promised for an hour.

        A promise is made of an answer that is not being removed. ``asked_by``: who asks its question just
        now, so that it is not to be forgotten any more. An unchanged job that succeeded is the same object
        each time.
        """
        end, kept = self._kept.get(job_id) or (b"", None)
        words = (job_id, end.decode(), asked_by or "", pins.PIN_S)

        def read(reply: tuple[int, list[bytes] | None]) -> tuple[Job | None, bool]:
            promised, flat = reply
            if flat is not None:
                return self._read(job_id, flat), bool(promised)
            assert kept is not None  # nothing else ended at that moment
            return kept, bool(promised)

        return RedisCommand(lambda client: self._look(*words, client=client), read)

    def _read(self, job_id: str, flat: list[bytes]) -> Job | None:
        if not flat:
            return None
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        job = Job.from_fields(job_id, fields)
        if job.state == "succeeded" and b"finished_at" in fields:
            self._kept.put(job_id, (fields[b"finished_at"], job))
        return job
