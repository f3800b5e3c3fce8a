"""How a job stands, in one round trip: its record, its place in line, and the promise of its answer.

The record of a job that succeeded does not change any more until it is gone or replaced, and is most of what
is read. So the last of them are kept as they were read, and Redis is asked whether the record still is the
one that ended at that moment: it answers for every look, and sends the record where it is another.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import cast

import redis

from workers import claims
from workers.claims import claim_key, pin_key
from workers.queue import FORGOTTEN_KEY
from workers.ready import POSITION
from workers.records import Job
from workers.scripts import Script

#: Answers that are kept, those looked at last; one takes 10 to 100 KB.
MOST_KEPT = 256

# In a full Redis too: what is there is answered, and a pin is small and short.
_LOOK = f"""
local id, known_end, asked, pin_s = unpack(ARGV, 3, 6)
local state, finished_at = unpack(redis.call('HMGET', own_key(id), 'state', 'finished_at'))
if not state then return {{0, {{}}}} end
if state ~= 'succeeded' then return {{0, standing(id)}} end
local promised = 1 - redis.call('EXISTS', '{claim_key("")}' .. id)
if promised == 1 then
  redis.call('SET', '{pin_key("")}' .. id, 1, 'EX', pin_s)
  if asked == '1' then redis.call('SREM', '{FORGOTTEN_KEY}', id) end
end
return {{promised, finished_at ~= known_end and redis.call('HGETALL', own_key(id)) or false}}
"""


class Looks:
    """Looks at jobs. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._look = Script(redis, POSITION + _LOOK, "allow-oom")
        self._kept: OrderedDict[str, tuple[bytes, Job]] = OrderedDict()
        self._changing = threading.Lock()

    def __call__(self, job_id: str, *, asked: bool = False) -> tuple[Job | None, bool]:
        """The job as it stands, None where it has no record; and whether its answer is promised for an hour.

        A promise is made of an answer that is not being removed. ``asked``: its question was, so it is not
        to be forgotten any more. An unchanged job that succeeded is the same object each time.
        """
        end, kept = self._kept.get(job_id, (b"", None))
        words = (job_id, end.decode(), int(asked), claims.PIN_S)
        promised, flat = cast("tuple[int, list[bytes] | None]", self._look(*words))
        if flat is None:
            assert kept is not None  # nothing else ended at that moment
            self._keep(kept, end)
            return kept, bool(promised)
        if not flat:
            return None, False
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        job = Job.from_fields(job_id, fields)
        if job.state == "succeeded" and b"finished_at" in fields:
            self._keep(job, fields[b"finished_at"])
        return job, bool(promised)

    def _keep(self, job: Job, end: bytes) -> None:
        with self._changing:
            self._kept[job.id] = (end, job)
            self._kept.move_to_end(job.id)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
