"""An observer beside the service: which run holds which job, what a fault hit, and when that began again."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from redis import Redis
from redis.exceptions import RedisError

from tests.chaos.book import Account, Book
from tests.chaos.callers import ENDED
from tests.chaos.plan import AT_THE_QUEUE, FaultKind
from tests.support.damaged_files import Damage
from workers.broker import keys, rq_names
from workers.fleet import catalog
from workers.jobs.kinds.attribution import ATTRIBUTION, HEATMAP
from workers.jobs.kinds.visualization import image_path
from workers.storage.paths import artifact_path
from workers.storage.store import Store

#: Between two looks at what runs, and at what has ended.
LOOK_S = 0.1
ENDS_S = 0.5
#: A job that Redis has forgotten, and that nobody asks for again within this, is not wanted any more.
FORGOTTEN_S = 10.0
#: A job of a version that nobody serves fails within this.
UNSERVED_S = 15.0


class Held(NamedTuple):
    """A job in the hands of a run."""

    job_id: str
    execution: str
    worker: str
    started_at: float
    priority: str


@dataclass
class Hit:
    """A job that a fault hit.

    ``waits_at``: when it was first seen to be in the queue again; ``again_at``: when its next run began;
    ``ended``: its state where none came.
    """

    held: Held
    waits_at: float | None = None
    again_at: float | None = None
    ended: str = ""

    @property
    def settled(self) -> bool:
        return self.again_at is not None or bool(self.ended)


@dataclass
class Blow:
    """A fault that happened, when, and what it hit."""

    kind: FaultKind
    at: float
    until: float
    target: str
    hits: list[Hit] = field(default_factory=list)


class Watch(threading.Thread):
    """Looks until ``over`` is set. Safe to ask from other threads."""

    def __init__(
        self, redis: Redis, store: Store, book: Book, over: threading.Event, real: Callable[[float], float]
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self._redis = redis
        self._store = store
        self._book = book
        self._over = over
        self._real = real
        self._offers: list[tuple[float, frozenset[str]]] = []
        self._running: dict[str, Held] = {}
        self._blows: list[Blow] = []
        self._ends_s = 0.0
        self.starts: dict[str, float] = {}  # by run

    def run(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                self.look()
                if time.monotonic() >= self._ends_s:
                    self._see_ends()
                    self._note_offers()
                    self._ends_s = time.monotonic() + ENDS_S
            except RedisError:
                continue  # as everybody, it waits for Redis to come back

    def running(self) -> list[Held]:
        """What runs now; where Redis cannot say, what did last."""
        with suppress(RedisError):
            self.look()
        return list(self._running.values())

    def answers(self) -> list[Account]:
        """What has succeeded, of callers at the queue."""
        accounts = self._book.succeeded()
        return [account for account in accounts if account.questions[0].caller in AT_THE_QUEUE]

    def damage(self, account: Account, path: str, damage: Damage) -> None:
        """Damage a file of an answer."""
        data = self._store.get(path)
        if data is not None:
            self._store.replace(path, damage(data))
            self._book.damage(account)

    def unserved(self, version: str, at: float | None = None) -> bool:
        """Whether no live worker was seen to serve the version at some moment shortly before, or ever."""
        return any(
            versions and version not in versions
            for when, versions in self._offers
            if at is None or at - UNSERVED_S < when < at + UNSERVED_S
        )

    def _note_offers(self) -> None:
        versions = set()
        for worker in catalog.live_workers(self._redis):
            word = cast("bytes | None", self._redis.get(keys.readiness_key(worker)))
            versions |= {name.partition("@")[2] for name in json.loads(word or b"{}") if "@" in name}
        self._offers.append((time.time(), frozenset(versions)))

    def follow(self, blow: Blow) -> None:
        """See what becomes of the jobs it hit."""
        self._blows.append(blow)

    @property
    def unsettled(self) -> list[Hit]:
        """Those of which that is not known yet."""
        return [hit for blow in list(self._blows) for hit in blow.hits if not hit.settled]

    def look(self) -> None:
        members = [
            member.decode() for member in cast(list[bytes], self._redis.zrange(rq_names.LEASES_KEY, 0, -1))
        ]
        open_hits = [(blow, hit) for blow in list(self._blows) for hit in blow.hits if not hit.settled]
        ids = dict.fromkeys([member.rpartition(":")[0] for member in members])
        ids |= dict.fromkeys(hit.held.job_id for _, hit in open_hits)
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                fields = ("state", "execution", "worker", "started_at", "finished_at", "priority")
                pipe.hmget(keys.job_key(job_id), *fields)
            records = dict(zip(ids, map(_texts, pipe.execute()), strict=True))
        running = {}
        for job_id, (state, execution, worker, started_at, _, priority) in records.items():
            if state == "running" and execution and worker and started_at:
                held = Held(job_id, execution, worker, float(started_at), priority or "")
                running[job_id] = held
                self.starts[execution] = self._real(held.started_at)
        self._running = running
        for blow, hit in open_hits:
            _settle(blow, hit, records[hit.held.job_id], self._real)

    def _see_ends(self) -> None:
        ids = self._book.open_ids()
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hget(keys.job_key(job_id), "state")
            states = [(state or b"").decode() for state in pipe.execute()]
        for job_id, state in zip(ids, states, strict=True):
            account = self._book.accounts[job_id]
            if state in ENDED:
                self._see_end(job_id)
            elif not state and account.told:  # forgotten since, and nobody will ask again
                account.end = {"state": account.told}

    def _see_end(self, job_id: str) -> None:
        fields = record(self._redis, job_id)
        if fields.get("state") not in ENDED:
            return
        account = self._book.accounts[job_id]
        if fields["state"] == "succeeded":
            png = self._store.get(first_picture(fields.get("kind", ""), job_id))
            account.image_sha256 = "" if png is None else hashlib.sha256(png).hexdigest()
        account.end, account.end_seen_at = fields, time.time()


def first_picture(kind: str, job_id: str) -> str:
    """The path of the picture that stands for a result."""
    return artifact_path(job_id, HEATMAP) if kind == ATTRIBUTION.name else image_path(job_id, 0)


def _settle(blow: Blow, hit: Hit, record: list[str | None], real: Callable[[float], float]) -> None:
    state, execution, _, started_at, finished_at, _ = record
    if execution and execution != hit.held.execution and real(float(started_at or 0)) > blow.at:
        hit.again_at = real(float(started_at or 0))
        hit.waits_at = hit.waits_at or hit.again_at
    elif state in ENDED:
        hit.ended = state if real(float(finished_at or 0)) > blow.at else "before"
    elif state is None and time.time() > blow.until + FORGOTTEN_S:
        hit.ended = "forgotten"
    elif state == "queued" and hit.waits_at is None:
        hit.waits_at = time.time()


def _texts(values: list[bytes | None]) -> list[str | None]:
    return [None if value is None else value.decode() for value in values]


def record(redis: Redis, job_id: str) -> dict[str, str]:
    """All fields of a job's record."""
    raw = cast(dict[bytes, bytes], redis.hgetall(keys.job_key(job_id)))
    return {name.decode(): value.decode() for name, value in raw.items()}
