"""Who may count on a stored answer: those it was promised to, or the collector that removes it.

Whoever asks a question *pins* its answer for an hour. The collector (`workers.storage.collector`) *claims* an
answer before it removes it: not while it is pinned, nor while its job waits or runs. Both are scripts in
Redis, so that of a question and a collector that meet one comes first. Who finds a claim does not answer from
the store; the job may be queued again at once, and its run waits until the claim has ended.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Literal, cast

import redis

from workers.broker import queue

#: How long what was promised stays: time to fetch a picture whose address one has just been given.
PIN_S = 3600
#: When a claim ends if its collector dies. A run of the same job waits that long at most.
CLAIM_S = 60
#: A collector begins no removal later than this after its claim: the rest is for the removal itself, of which
#: obstore gives up a try after 30 s (object_store's `ClientOptions`).
CLAIM_USE_S = 10.0

Refusal = Literal["asked", "underway", "claimed"]

# Allowed in a full Redis: what needs no computing is answered all the same, and a pin is small and short.
_PIN = """#!lua flags=allow-oom
local pin, claim, forgotten = unpack(KEYS)
if redis.call('EXISTS', claim) == 1 then return 0 end
redis.call('SET', pin, 1, 'EX', ARGV[1])
if ARGV[2] ~= '' then redis.call('SREM', forgotten, ARGV[2]) end
return 1
"""

# A record that says `succeeded` goes in the same step: nobody is told of an image that is about to go. What
# failed or was canceled has promised none, and its record stays to say why.
_CLAIM = """#!lua flags=allow-oom
local pin, claim, own, entry, finished, results = unpack(KEYS)
local id, token, claim_s, damaged = unpack(ARGV)
if damaged == '0' and redis.call('EXISTS', pin) == 1 then return 'asked' end
local state = redis.call('HGET', own, 'state')
local status = redis.call('HGET', entry, 'status')
if state == 'queued' or state == 'running' or status == 'queued' or status == 'started' then
  return 'underway'
end
if not redis.call('SET', claim, token, 'NX', 'EX', claim_s) then return 'claimed' end
if damaged == '0' and state == 'succeeded' then
  redis.call('DEL', own, entry, results)
  redis.call('ZREM', finished, id)
end
return ''
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


def pin_key(job_id: str) -> str:
    """There while somebody may count on the answer of that job."""
    return f"proxygrad:pin:{job_id}"


def claim_key(job_id: str) -> str:
    """There while a collector removes what the store has of that job."""
    return f"proxygrad:collecting:{job_id}"


@dataclass(frozen=True)
class DeletionLock:
    """A collector's right to remove what the store has of a job."""

    job_id: str
    token: str
    use_until_s: float

    @property
    def usable(self) -> bool:
        """Whether a removal may still begin."""
        return time.monotonic() < self.use_until_s


class ArtifactPins:
    """Pins and claims. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis
        self._pin = redis.register_script(_PIN)
        self._claim = redis.register_script(_CLAIM)
        self._release = redis.register_script(_RELEASE)

    def pin(self, job_id: str, *, asked: bool = False) -> bool:
        """Promise the stored answer for `PIN_S` seconds; False when it is being removed.

        To be called before one looks into the store, which may turn out not to have it. ``asked``: its
        question was, so it is not to be forgotten any more.
        """
        keys = [pin_key(job_id), claim_key(job_id), queue.FORGOTTEN_KEY]
        return bool(self._pin(keys=keys, args=[PIN_S, job_id if asked else ""]))

    def collecting(self, job_id: str) -> bool:
        """Whether a collector is removing what the store has of that job."""
        return bool(self._redis.exists(claim_key(job_id)))

    def underway(self, job_id: str) -> bool:
        """Whether the job waits or runs."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hget(queue.job_key(job_id), "state")
            pipe.hget(queue.entry_key(job_id), "status")
            state, status = pipe.execute()
        return state in (b"queued", b"running") or status in (b"queued", b"started")

    def claim(self, job_id: str, *, damaged: bool = False) -> DeletionLock | Refusal:
        """The right to remove, and with it the record of a succeeded job is gone; or why not.

        ``damaged``: only what cannot be read is removed. No promise protects that, and the record in Redis
        stays.

        ``asked``: somebody was promised the answer. ``underway``: the job waits or runs. ``claimed``: another
        collector is at it.
        """
        keys = [
            pin_key(job_id),
            claim_key(job_id),
            queue.job_key(job_id),
            queue.entry_key(job_id),
            queue.FINISHED_KEY,
            f"rq:results:{job_id}",
        ]
        token, asked_s = secrets.token_hex(8), time.monotonic()
        refusal = cast(bytes, self._claim(keys=keys, args=[job_id, token, CLAIM_S, int(damaged)])).decode()
        return cast(Refusal, refusal) if refusal else DeletionLock(job_id, token, asked_s + CLAIM_USE_S)

    def release(self, claim: DeletionLock) -> None:
        """End a claim, if it is still there."""
        self._release(keys=[claim_key(claim.job_id)], args=[claim.token])
