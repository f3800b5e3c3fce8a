"""How a batch is put into the queue: a window of its units at a time, by whichever worker comes first.

Every worker has a thread for it, woken when a batch may go on: when it was asked for, when a quarter of its
window has become free, and once a second in any case. One worker at a time is at one batch, under a claim
that ends by itself; what it had taken in hand when it died is done again by the next, which changes nothing,
as the same question is the same job.

The link from the job to its batch comes before the job (`workers.batches.batching`), so that no end is
missed.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from proxygrad.errors import InvalidRequest
from proxygrad.protocol.problems import Problem
from proxygrad.spec import ModelInfo
from workers.batches.batch import Batch
from workers.batches.batching import LETTERS, due_key, units_key
from workers.batches.expansion_commands import PIN_EVERY_S, ExpansionCommands
from workers.batches.repository import Batches
from workers.errors import QueueFull, QueueMemoryFull, StorageError
from workers.execution.context import WorkerContext
from workers.fleet import catalog
from workers.jobs.repository import Job, Limits

#: Every worker looks this often for batches that may go on, in case it was not told.
LOOK_S = 1.0
#: Between two looks whether the process stops, or a batch is due.
_PAUSE_S = 0.25
#: Units taken in hand at a time: a fraction of a second of work.
CHUNK = 16
#: Longer than a chunk takes, and no more: of a worker that died, another goes on after it. Two at once are
#: slower, and do no harm.
CLAIM_S = 5
#: How long a batch rests after the queue was full or the store did not answer, unless a unit of it ends.
REST_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Asked:
    """One unit in hand: its job, and how that stands, where it stands at all."""

    unit: int
    job_id: str
    state: str = ""
    detail: str = ""

    @property
    def words(self) -> tuple[str | int, ...]:
        return self.unit, self.job_id, self.state, self.detail


class BatchExpander:
    """Puts batches of the models that ``runtime`` serves into the queue; `round` again and again."""

    def __init__(self, runtime: WorkerContext) -> None:
        self._redis = runtime.redis
        self._jobs = runtime.jobs
        self._models = runtime.models
        self._stopping = runtime.stopping
        self._told = runtime.batches_told
        self._batches = Batches(runtime.redis)
        self._scripts = ExpansionCommands(runtime.redis)
        self._turn = 0

    def round(self) -> None:
        """Look once, and do what comes up within a second."""
        until_s = time.monotonic() + LOOK_S
        self.look()
        while not self._stopping.is_set() and (left_s := until_s - time.monotonic()) > 0:
            self._told.clear()
            if not self.expand_due():
                self._told.wait(min(left_s, _PAUSE_S))

    def look(self) -> None:
        """Find what may go on, end what is overdue, and finish cancellations, unless another worker has."""
        for batch_id in self._scripts.look(LOOK_S):
            self._batches.withdraw(batch_id)

    def expand_due(self) -> bool:
        """Go on with one batch that is due, of a model that is served here; whether there was one.

        Models take turns: batches that wait for room are due again each second, and there may be many.
        """
        infos = [(each.name, each.info) for each in self._models.served if each.info is not None]
        for _ in infos:
            self._turn += 1
            model, info = infos[self._turn % len(infos)]
            popped = cast(list[tuple[bytes, float]], self._redis.zpopmin(due_key(model)))
            if popped:
                self.expand(popped[0][0].decode(), info)
                return True
        return False

    def expand(self, batch_id: str, info: ModelInfo) -> None:
        """Queue of the batch what there is room for, unless another worker is at it."""
        token = secrets.token_hex(8)
        if not self._scripts.claim(batch_id, token, CLAIM_S):
            return
        rest_s = REST_S
        try:
            batch = self._batches.fetch(batch_id)
            if batch is not None and self._may_go_on(batch, info):
                rest_s = self._fill(batch, info, token)
        finally:
            self._scripts.release(batch_id, token, rest_s)

    def _may_go_on(self, batch: Batch, info: ModelInfo) -> bool:
        """Whether the model is what was asked about; where no worker has that any more, the batch ends."""
        if (info.digest, info.engine_version) == (batch.digest, batch.engine_version):
            self._pin(batch)
            return True
        if not catalog.serves(self._redis, info.name, batch.digest, batch.engine_version):
            detail = (
                f"model {info.name!r} has other weights, or another method, than when the batch was asked "
                "for; ask it again"
            )
            self._scripts.drop(batch.id, "model_changed", detail)
        return False

    def _fill(self, batch: Batch, info: ModelInfo, token: str) -> float:
        """Chunk by chunk until there is no room or nothing left; for how long to rest then, in seconds."""
        limits = _of_batches(batch.limits)
        while not self._stopping.is_set():
            numbers = self._scripts.next(batch.id, token, CLAIM_S, CHUNK)
            chunk = [_Asked(unit, self._identity(batch, unit, info)) for unit in numbers]
            pairs = [(each.unit, each.job_id) for each in chunk]
            if not chunk or not self._scripts.link(batch.id, token, pairs):
                return 0.0
            done, trouble = self._submit(batch, chunk, info, limits)
            refused = [each.unit for each in chunk[len(done) :]] if isinstance(trouble, QueueFull) else []
            words = [each.words for each in done]
            self._scripts.align(batch.id, token, batch.caller, words, refused)
            if trouble is not None:
                return REST_S
        return 0.0

    @staticmethod
    def _identity(batch: Batch, unit: int, info: ModelInfo) -> str:
        return batch.about(unit, 0.0).spec.identity(info)

    def _submit(
        self, batch: Batch, chunk: Sequence[_Asked], info: ModelInfo, limits: Limits
    ) -> tuple[list[_Asked], Exception | None]:
        """Ask one after the other; how they stand, up to the one that could not be asked, and why."""
        done: list[_Asked] = []
        now_s = self._now_s()
        for each in chunk:
            try:
                job, _ = self._jobs.submit(
                    batch.about(each.unit, now_s), info, caller=batch.caller, flow=batch.id, limits=limits
                )
            except InvalidRequest as error:
                problem = Problem(code=error.code, detail=str(error)).model_dump_json()
                done.append(_Asked(each.unit, each.job_id, "failed", problem))
                continue
            except QueueFull as error:
                return done, error
            except (QueueMemoryFull, StorageError) as error:
                _log.warning("batch %s rests: %s", batch.id, error)
                return done, error
            done.append(_Asked(each.unit, job.id, job.state, _answer(job)))
        return done, None

    def _now_s(self) -> float:
        """By the clock of Redis, as all records have it."""
        seconds, micros = self._redis.time()
        return seconds + micros / 1e6

    def _pin(self, batch: Batch) -> None:
        """Promise anew what the batch has been answered so far, where that is long ago."""
        if not self._scripts.pins_due(batch.id, PIN_EVERY_S):
            return
        for mark in cast(list[bytes], self._redis.hvals(units_key(batch.id))):
            letter, job_id, _ = mark.decode().split(" ", 2)
            if LETTERS[letter] == "succeeded":
                self._jobs.pin(job_id)


def _of_batches(limits: Limits) -> Limits:
    """What a batch may take of a caller's limits: three quarters, so that there is room for a question."""

    def most(limit: int) -> int:
        return max(1, limit * 3 // 4)

    in_flight = None if limits.in_flight is None else most(limits.in_flight)
    return Limits(most(limits.queued), most(limits.queued_per_caller), in_flight)


def _answer(job: Job) -> str:
    """As `unit_detail` of `workers.batches.batching` has it."""
    if job.result is None:
        return ""
    return f"{job.result.achieved_activation!r}{f' {job.best}' if job.best else ''}"
