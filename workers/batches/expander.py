"""The batch expander: turns batches into jobs, a window of units at a time, on whichever worker comes first.

Every worker has a thread for it, woken when a batch is due: when it was submitted, when a quarter of its
window has become free, and once a second in any case. One worker at a time expands a batch, under a claim
that ends by itself; the units that it had in hand when it died are submitted again by the next, which changes
nothing, as the same request is the same job.

The job is linked to its batch before it is submitted (``workers/lua/lib/batches.lua``), so that no end is
missed.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import redis
from redis.exceptions import ResponseError

from proxygrad.errors import InvalidRequest
from proxygrad.protocol.problems import Problem
from proxygrad.spec import ModelInfo
from workers.batches.batch import LETTERS, BatchRecord
from workers.batches.expansion_commands import PIN_EVERY_S, ExpansionCommands
from workers.batches.repository import Batches
from workers.broker import keys, limits
from workers.broker.pipeline import run_blocking
from workers.errors import QueueLimitReached, QueueMemoryFull, StorageError, UnknownKind, UnreadableRecord
from workers.fleet.catalog import ServedModel
from workers.jobs.job import Job
from workers.jobs.kinds.visualization import VISUALIZATION
from workers.jobs.repository import Jobs
from workers.jobs.requests import Limits, Submission

#: Every worker looks this often for due batches, in case a message was lost.
LOOK_S = 1.0
#: Between two looks whether the process stops, or a batch is due.
_PAUSE_S = 0.25
#: Units taken in hand at a time: a fraction of a second of work.
CHUNK = 16
CLAIM_S = limits.CLAIM_S
REST_S: float = limits.REST_S

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _UnitJob:
    """One unit in hand: its job, and how that stands, where it stands at all."""

    unit: int
    job_id: str
    state: str = ""
    detail: str = ""

    @property
    def words(self) -> tuple[str | int, ...]:
        return self.unit, self.job_id, self.state, self.detail


class ServedModels(Protocol):
    """The models of a worker; ``served`` changes."""

    @property
    def served(self) -> Sequence[ServedModel]: ...  # noqa: D102


class BatchExpander:
    """Expands batches of the served ``models``: call `round` again and again until ``stopping`` is set.

    ``due``: set by others when a batch became due.
    """

    def __init__(
        self,
        redis: redis.Redis,
        jobs: Jobs,
        models: ServedModels,
        stopping: threading.Event,
        due: threading.Event,
    ) -> None:
        self._redis = redis
        self._jobs = jobs
        self._models = models
        self._stopping = stopping
        self._due = due
        self._batches = Batches(redis)
        self._commands = ExpansionCommands(redis)
        self._turn = 0

    def round(self) -> None:
        """Look once, and do what comes up within a second."""
        until_s = time.monotonic() + LOOK_S
        self.look()
        while not self._stopping.is_set() and (left_s := until_s - time.monotonic()) > 0:
            self._due.clear()
            if not self.expand_due():
                self._due.wait(min(left_s, _PAUSE_S))

    def look(self) -> None:
        """Find what may go on, end what is overdue, and finish cancellations, unless another worker has."""
        for batch_id in self._commands.look(LOOK_S):
            self._batches.withdraw(batch_id)

    def expand_due(self) -> bool:
        """Go on with one batch that is due, of a model that is served here; whether there was one.

        Models take turns: batches that wait for room are due again each second, and there may be many.
        """
        infos = [each.info for each in self._models.served if each.info is not None]
        for _ in infos:
            self._turn += 1
            info = infos[self._turn % len(infos)]
            names = [VISUALIZATION.exact_capability(info), VISUALIZATION.capability(info.name)]
            due = [keys.due_batches_key(name) for name in names]
            popped = cast("list[Any] | None", self._redis.zmpop(len(due), due, min=True))
            if popped:
                batch_id = popped[1][0][0].decode()
                try:
                    self.expand(batch_id, info)
                except (UnknownKind, UnreadableRecord, ResponseError) as error:  # others may go on
                    _log.warning("batch %s is not expanded: %s", batch_id, error)
                return True
        return False

    def expand(self, batch_id: str, info: ModelInfo) -> None:
        """Queue of the batch what there is room for, unless another worker is at it."""
        token = secrets.token_hex(8)
        if not self._commands.claim(batch_id, token, CLAIM_S):
            return
        rest_s = REST_S
        try:
            batch = self._batches.fetch(batch_id)
            if batch is not None:
                rest_s = self._fill(batch, info, token) if self._may_go_on(batch, info) else 0.0
        finally:
            self._commands.release(batch_id, token, rest_s)

    def _may_go_on(self, batch: BatchRecord, info: ModelInfo) -> bool:
        """Whether the model is that of the batch; if not, it is left to a worker that has that.

        Where there is none any more, the batch ends.
        """
        if (info.digest, info.engine_version) == (batch.digest, batch.engine_version):
            self._pin(batch)
            return True
        asked = info.model_copy(update={"digest": batch.digest, "engine_version": batch.engine_version})
        if not self._commands.pass_on(batch.id, batch.kind.exact_capability(asked)):
            detail = (
                f"model {info.name!r} has other weights, or another method, than when the batch was asked "
                "for; ask it again"
            )
            self._commands.drop(batch.id, "model_changed", detail)
        return False

    def _fill(self, batch: BatchRecord, info: ModelInfo, token: str) -> float:
        """Chunk by chunk until there is no room or nothing left; for how long to rest then, in seconds."""
        limits = _of_batches(batch.limits)
        while not self._stopping.is_set():
            numbers = self._commands.next(batch.id, token, CLAIM_S, CHUNK)
            chunk = [_UnitJob(unit, self._identity(batch, unit, info)) for unit in numbers]
            pairs = [(each.unit, each.job_id) for each in chunk]
            if not chunk or not self._commands.link(batch.id, token, pairs):
                return 0.0
            done, trouble = self._submit(batch, chunk, info, limits)
            refused = (
                [each.unit for each in chunk[len(done) :]] if isinstance(trouble, QueueLimitReached) else []
            )
            words = [each.words for each in done]
            self._commands.align(batch.id, token, batch.caller, words, refused)
            if trouble is not None:
                return REST_S
        return 0.0

    @staticmethod
    def _identity(batch: BatchRecord, unit: int, info: ModelInfo) -> str:
        return batch.request_of(unit, 0.0).spec.identity(info)

    def _submit(
        self, batch: BatchRecord, chunk: Sequence[_UnitJob], info: ModelInfo, limits: Limits
    ) -> tuple[list[_UnitJob], Exception | None]:
        """Submit one after the other; how they stand, up to the one that could not be, and the reason."""
        done: list[_UnitJob] = []
        now_s = self._now_s()
        for each in chunk:
            try:
                request = batch.request_of(each.unit, now_s)
                submission = Submission.of(batch.kind, request, info, batch.caller, batch.id)
                job, _ = run_blocking(self._jobs.submit(submission, limits), self._redis)
            except (InvalidRequest, UnreadableRecord) as error:
                problem = Problem(code=error.code, detail=str(error)).model_dump_json()
                done.append(_UnitJob(each.unit, each.job_id, "failed", problem))
                continue
            except QueueLimitReached as error:
                return done, error
            except (QueueMemoryFull, StorageError) as error:
                _log.warning("batch %s rests: %s", batch.id, error)
                return done, error
            done.append(_UnitJob(each.unit, job.id, job.state, _detail(job)))
        return done, None

    def _now_s(self) -> float:
        """By the clock of Redis, as all records have it."""
        seconds, micros = self._redis.time()
        return seconds + micros / 1e6

    def _pin(self, batch: BatchRecord) -> None:
        """Pin the results of the batch so far anew, where that is long ago."""
        if not self._commands.pins_due(batch.id, PIN_EVERY_S):
            return
        for mark in cast(list[bytes], self._redis.hvals(keys.units_key(batch.id))):
            letter, job_id, _ = mark.decode().split(" ", 2)
            if LETTERS[letter] == "succeeded":
                self._jobs.pin(job_id)


def _of_batches(limits: Limits) -> Limits:
    """The part of a caller's limits for batches: three quarters, which leaves room for single requests."""

    def most(limit: int) -> int:
        return max(1, limit * 3 // 4)

    in_flight = None if limits.in_flight is None else most(limits.in_flight)
    return Limits(most(limits.queued), most(limits.queued_per_caller), in_flight)


def _detail(job: Job) -> str:
    """As `unit_detail` of ``workers/lua/lib/batches.lua`` has it."""
    return job.unit_detail if job.state == "succeeded" else ""
