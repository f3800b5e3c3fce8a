"""A job's life as everybody sees it: its record, how it is submitted, how it is looked up.

::

    queued ──► running ──► succeeded | failed | cancelled
       ▲          │
       └──────────┘  its worker died, or gave it back

The record is a hash of our own beside RQ's; every change of state is one script in Redis, so that of two
processes that change it at once one comes first and the other sees it. Times are those of Redis' clock.
A job that succeeded is also kept in the store, which answers for it when Redis has forgotten it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, cast

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from proxygrad.spec import ModelInfo, Result, Spec
from workers import queue
from workers.errors import StorageError
from workers.storage import Store

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]

#: Fields of the record that hold JSON; the others are plain text.
_JSON_FIELDS = frozenset({"spec", "result", "images", "problem"})


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(_Record):
    """Why a job failed, or a model is not served: a stable code and a sentence for people."""

    code: str
    detail: str


class ImageInfo(_Record):
    """One stored image; the digest is of the stored bytes."""

    sha256: str
    size_bytes: int
    media_type: str
    width_px: int
    height_px: int


class Job(_Record):
    """One question and where its answer stands. Times are seconds since 1970, UTC.

    ``step`` of ``steps`` are done, with ``activation`` at that step; ``worker`` computes it or did;
    ``losses`` counts the workers that died with it.
    """

    id: str
    spec: Spec
    state: State
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    step: int = 0
    steps: int
    activation: float | None = None
    worker: str | None = None
    losses: int = 0
    result: Result | None = None
    images: tuple[ImageInfo, ...] = ()
    problem: Problem | None = None

    @property
    def ended(self) -> bool:
        """Whether the state will not change any more by itself."""
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def waited_s(self) -> float | None:
        """Seconds from submission to the start of the run that counts; None before."""
        return None if self.started_at is None else self.started_at - self.created_at

    @property
    def ran_s(self) -> float | None:
        """Seconds from that start to the end; None before."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at

    @classmethod
    def from_fields(cls, job_id: str, fields: Mapping[bytes, bytes]) -> Job:
        """The job that a record's fields describe."""
        known = {name: fields[name.encode()].decode() for name in cls.model_fields if name.encode() in fields}
        parsed = {name: json.loads(text) if name in _JSON_FIELDS else text for name, text in known.items()}
        return cls.model_validate({**parsed, "id": job_id})

    def to_fields(self) -> dict[str, str | int | float]:
        """The record's fields that describe this job; what is None has none."""
        values = self.model_dump(mode="json", exclude={"id"}, exclude_none=True)
        return {name: json.dumps(value) if name in _JSON_FIELDS else value for name, value in values.items()}


def result_path(job_id: str) -> str:
    """Where the store keeps the record of a succeeded job: written last, so with it everything is there."""
    return f"{job_id}/result.json"


def image_path(job_id: str, number: int) -> str:
    """Where the store keeps an image, counted from 0."""
    return f"{job_id}/{number}.png"


# Of two callers with the same question one creates the job and the other joins it; a job that ended without
# an answer starts again; one whose RQ entry vanished (`rq empty`, a Redis without its last second) does too.
_SUBMIT = """
local own, entry, queue, popped, leases, finished, failed, queues = unpack(KEYS)
local id, recompute, spec, steps = unpack(ARGV, 1, 4)
local state = redis.call('HGET', own, 'state')
local status = redis.call('HGET', entry, 'status')
local underway = (state == 'queued' or state == 'running') and (status == 'queued' or status == 'started')
if underway or (state == 'succeeded' and recompute == '0') then
  return {0, redis.call('HGETALL', own)}
end
if state or status then
  local run = redis.call('HGET', own, 'execution')
  if run then redis.call('ZREM', leases, id .. ':' .. run) end
  redis.call('LREM', queue, 0, id)
  redis.call('LREM', popped, 0, id)
  redis.call('ZREM', finished, id)
  redis.call('ZREM', failed, id)
  redis.call('DEL', own, entry)
end
local time = redis.call('TIME')
redis.call('HSET', own, 'spec', spec, 'steps', steps, 'state', 'queued', 'step', 0, 'losses', 0,
  'created_at', string.format('%d.%06d', time[1], time[2]))
redis.call('HSET', entry, unpack(ARGV, 5))
redis.call('RPUSH', queue, id)
redis.call('SADD', queues, queue)
return {1, redis.call('HGETALL', own)}
"""


class Jobs:
    """Submit and look up. Safe to share between threads."""

    def __init__(self, redis: redis.Redis, store: Store) -> None:
        self._redis = redis
        self._store = store
        self._submit = redis.register_script(_SUBMIT)

    def submit(self, spec: Spec, model: ModelInfo) -> tuple[Job, bool]:
        """Ask ``spec`` of ``model``: the job, and whether this call put it into the queue.

        The same question has the same id and is computed once: one that waits or runs is joined, one that
        succeeded is returned as it is. One that failed or was cancelled is queued again, and so is one
        whose stored answer is gone. Raises what `Spec.resolve` raises, and `StorageError`.
        """
        resolved, job_id = spec.resolve(model), spec.identity(model)
        known = self.fetch(job_id)
        succeeded = known is not None and known.state == "succeeded"
        if known is not None and succeeded and self._store.exists(result_path(job_id)):
            return known, False
        return self._enqueue(job_id, resolved, recompute=succeeded)

    def _enqueue(self, job_id: str, spec: Spec, *, recompute: bool) -> tuple[Job, bool]:
        keys = [
            queue.job_key(job_id),
            queue.entry_key(job_id),
            queue.QUEUE_KEY,
            queue.POPPED_KEY,
            queue.LEASES_KEY,
            queue.FINISHED_KEY,
            queue.FAILED_KEY,
            queue.QUEUES_KEY,
        ]
        entry = [part for pair in queue.entry_fields(job_id, self._redis).items() for part in pair]
        args = [job_id, int(recompute), spec.model_dump_json(), spec.steps, *entry]
        created, flat = cast(tuple[int, list[bytes]], self._submit(keys=keys, args=args))
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return Job.from_fields(job_id, fields), bool(created)

    def fetch(self, job_id: str) -> Job | None:
        """The job of that id as it stands, or None. Raises `StorageError` when the store cannot be read."""
        fields = cast(dict[bytes, bytes], self._redis.hgetall(queue.job_key(job_id)))
        return Job.from_fields(job_id, fields) if b"state" in fields else self.stored(job_id)

    def stored(self, job_id: str) -> Job | None:
        """The succeeded job as the store keeps it, or None. Raises `StorageError` for a damaged record."""
        record = self._store.get(result_path(job_id))
        try:
            return None if record is None else Job.model_validate_json(record)
        except ValidationError as exc:
            raise StorageError(
                f"{result_path(job_id)} in the store {self._store.url} is no job's record"
            ) from exc

    def queue_position(self, job_id: str) -> int | None:
        """How many jobs wait before this one, 0 for the next; None when it does not wait."""
        return cast("int | None", self._redis.lpos(queue.QUEUE_KEY, job_id))
