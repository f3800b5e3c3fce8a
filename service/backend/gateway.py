"""What every route needs: the settings, the queue, the catalog and the store, without blocking.

Redis and the store are reached by short blocking calls in a thread each; a long wait is a coroutine
that is woken by what happens to the job (`service.backend.event_hub`) and holds no thread.
"""

from __future__ import annotations

import asyncio
import copy
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, TypeVar, TypeVarTuple, cast

from anyio import to_thread
from fastapi import Depends, Request
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from proxygrad.errors import UnknownModel
from proxygrad.spec import ModelInfo
from service.api.ids import ID_PATTERN
from service.api.queries import check_names
from service.auth.callers import ANYBODY, STATE, Caller
from service.backend.caches import ResponseCache
from service.backend.coalescing import Coalescer, one_by_one
from service.backend.event_hub import EventHub
from service.backend.idempotency import Idempotency
from service.backend.long_polling import Heard, until_ended
from service.backend.model_registry import ModelRegistry
from service.images.contact_sheet import ContactSheets
from service.images.conversion import Conversions
from service.problems import ProblemError
from service.settings import Settings
from service.web.json_body import RequestCache
from service.webhooks.urls import AllowedHosts
from workers.batches.repository import Batches
from workers.broker.pipeline import Operation, RedisCommand, execute_together, run_async
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.fleet.statistics import FleetStatisticsReader
from workers.jobs.repository import Event, Job, Jobs, Limits, Requester, Submission
from workers.storage.store import Store
from workers.webhooks import Deliveries

JOB_ID = re.compile(ID_PATTERN)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: After Redis let a call time out, calls are refused at once for this long; then one looks again, alone,
#: while the others are still refused for at most `LOOK_S`. So a frozen Redis costs a caller one timeout at
#: most, instead of a place in a growing line of threads.
SILENCE_S = 1.0
LOOK_S = 5.0
#: Pictures that are converted at once: others wait without a thread, which calls to Redis need.
CONVERTED_AT_ONCE = 4


@dataclass
class _Process:
    """What is of the whole process, whoever asks."""

    silent_until_s: float = 0.0
    started: bool = False


class Gateway:
    """One process's access to queue, catalog and store, on behalf of ``caller``.

    ``asked``: what the caller is to the job that the request is about, where it sees but its own.
    """

    def __init__(self, settings: Settings, redis: Redis, store: Store) -> None:
        self.settings = settings
        self.redis = redis
        self.store = store
        self.jobs = Jobs(redis, store)
        self.batches = Batches(redis)
        self.deliveries = Deliveries(redis)
        self.censuses = FleetStatisticsReader(redis)
        self.receivers = AllowedHosts(settings.webhook_hosts)
        self.conversions = Conversions()
        self.converting = asyncio.Semaphore(CONVERTED_AT_ONCE)
        self.sheets = ContactSheets(self.jobs.image)
        self.idempotency = Idempotency(redis)
        self.questions = RequestCache()
        self.renderings = ResponseCache()
        self._commands = Coalescer[RedisCommand[Any]](self.call, partial(execute_together, redis))
        self._near = Coalescer[Callable[[], Any]](self.call, one_by_one) if store.near else None
        self._offers = ModelRegistry(redis, self.call)
        self.caller = ANYBODY
        self.asked: Requester | None = None
        self._process = _Process()
        self.live = EventHub(settings.redis_url or "", self._watch)

    async def start(self) -> None:
        """See that Redis answers, unless it has before. Raises `RedisError`."""
        if not self._process.started:
            await self.call(self.redis.ping)
            self._process.started = True

    def close(self) -> None:
        """Let every long wait return at once with what it has, so that the process can stop."""
        self.live.close()

    async def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a short blocking `function` of Redis in a thread."""
        return await to_thread.run_sync(self._guarded, function, args)

    async def send(self, command: RedisCommand[T]) -> T:
        """What came of a command for Redis; those of many requests go together."""
        return cast(T, await self._commands(command))

    async def take(self, steps: Operation[T]) -> T:
        """What came of `steps`, such as the queue offers.

        What they do in the store is a few µs in a directory, and done for many at once, one after another.
        """
        return await run_async(steps, self._commands, self._near or self.call)

    def _guarded(self, function: Callable[[*Ts], T], args: tuple[*Ts]) -> T:
        if self._process.silent_until_s:
            if time.monotonic() < self._process.silent_until_s:
                raise RedisTimeout("Redis let a call time out a moment ago")
            self._process.silent_until_s = time.monotonic() + LOOK_S
        try:
            outcome = function(*args)
        except RedisTimeout:
            self._process.silent_until_s = time.monotonic() + SILENCE_S
            raise
        self._process.silent_until_s = 0.0
        return outcome

    async def on_behalf_of(self, caller: Caller, job_id: str | None) -> Gateway:
        """The same for a caller, who has asked for the job of that id, or may see all.

        Refuses with `unknown_visualization`: what others asked for is not there.
        """
        if caller.anonymous:
            return self
        bound = copy.copy(self)
        bound.caller = caller
        if job_id is not None and not caller.operates:
            bound.asked = await self.send(self.jobs.requester(job_id, caller.name))
            if bound.asked is None and not caller.sees_all:
                raise _unknown(job_id)
        return bound

    @property
    def limits(self) -> Limits:
        """What the queue may hold, and what of it may be of this caller."""
        return replace(self.settings.limits, in_flight=self.caller.in_flight)

    async def submit(self, submission: Submission) -> Job:
        """The job for what was asked, new or known; see `Jobs.submit`."""
        return (await self.take(self.jobs.submit(submission, self.limits)))[0]

    def retry(self, job_id: str) -> Job | None:
        """The job, queued again where it had failed or was canceled; None when Redis has none. Blocks."""
        self._own(job_id, "retry")
        caller = None if self.caller.anonymous else self.caller.name
        retried = self.jobs.retry(job_id, caller=caller, limits=self.limits)
        self.asked = None  # asked again, whatever was before
        return None if retried is None else retried[0]

    def known(self, job_id: str) -> Job | None:
        """The job of that id as the caller sees it; None where it has not asked for it. Blocks."""
        job = self.jobs.fetch(job_id)
        if job is None or self.caller.operates:
            return job
        self.asked = self.jobs.requester(job_id, self.caller.name)(self.redis)
        return None if self.asked is None else self._as_seen(job)

    def cancel(self, job_id: str) -> Job | None:
        """Let nobody compute it, or, where others asked too, withdraw the caller alone. Blocks."""
        self._own(job_id, "cancel")
        if self.caller.operates:
            return self.jobs.cancel(job_id)
        job = self.jobs.cancel(job_id, caller=self.caller.name)
        self.asked = self.jobs.requester(job_id, self.caller.name)(self.redis)
        return None if job is None else self._as_seen(job)

    def forget(self, job_id: str) -> bool:
        """Leave nothing of it, for anybody or, where others asked too, for the caller alone. Blocks."""
        self._own(job_id, "delete")
        return self.jobs.forget(job_id, caller=None if self.caller.operates else self.caller.name)

    def _own(self, job_id: str, what: str) -> None:
        """Refuse to change what the caller sees only because it may see all."""
        if not self.caller.operates and self.asked is None:
            needed = "a key needs the scope 'admin', or to ask the question too"
            raise ProblemError("forbidden", f"to {what} what another caller asked for, {needed}")

    def _as_seen(self, job: Job) -> Job:
        withdrawn_at = None if self.asked is None else self.asked.withdrawn_at
        return job if withdrawn_at is None else job.as_withdrawn(withdrawn_at)

    async def served(self) -> dict[str, ServedModel]:
        """What live workers serve; refuses with `no_worker` when none lives."""
        served = await self._offers.served()
        if not served and not await self.call(catalog.live_workers, self.redis):
            raise ProblemError(
                "no_worker", "no worker is alive, so nothing is served; start one with `python -m workers`"
            )
        return served

    async def served_model(self, name: str) -> ServedModel:
        """The model of that name, ready or not; raises `UnknownModel` with near names."""
        served = await self.served()
        if name not in served:
            raise UnknownModel(name, sorted(served))
        return served[name]

    async def model(self, name: str) -> ModelInfo:
        """The ready model of that name; refuses with the worker's reason when it could not be loaded."""
        served = await self._offers.ready(name) or await self.served_model(name)
        if served.info is None:
            reason = served.problem.detail if served.problem else "its worker gave no reason"
            raise ProblemError("model_unavailable", f"model {name!r} could not be loaded: {reason}")
        return served.info

    async def job(self, job_id: str) -> Job:
        """The job of that id; refuses with `unknown_visualization`. Its answer stays for an hour."""
        job = await self.take(self.jobs.look(job_id))
        if job is None:
            raise _unknown(job_id)
        return self._as_seen(job)

    async def image(self, job_id: str, number: int) -> bytes | None:
        """The picture, from the store alone: Redis need not answer.

        `None` until the job ended well, and for a picture that is gone or damaged.
        """
        withdrawn = self.asked is not None and self.asked.withdrawn_at is not None
        if withdrawn and (await self.job(job_id)).state != "succeeded":
            return None
        return await to_thread.run_sync(self.jobs.image, job_id, number)

    async def ended(self, job_id: str, wait_s: float, request: Request) -> Job:
        """The job when it has ended, or as it stands after `wait_s` seconds or when the caller went away."""

        async def look(heard: Heard) -> Job:
            if isinstance(heard, Event) and heard.kind == "withdrawn" and heard.data == self.caller.name:
                self.asked = await self.send(self.jobs.requester(job_id, self.caller.name))
            return await self.job(job_id)

        kinds = {"state", "withdrawn"}
        job = await self.job(job_id)
        return await until_ended(job, job_id, look, self.live, wait_s, request, kinds=kinds)

    async def _watch(self, job_ids: list[str]) -> None:
        await self.call(self.jobs.watch, job_ids)

    def followed(self, job_id: str, after: str | None) -> tuple[Job | None, str, list[Event]]:
        """How the job stands, and what happened since, as `Jobs.followed`; previews are wanted. Blocks."""
        if self.asked is not None:
            self.asked = self.jobs.requester(job_id, self.caller.name)(self.redis)
        job, last, missed = self.jobs.followed(job_id, after)
        if job is not None and not job.ended:
            self.jobs.watch([job_id])
        return None if job is None else self._as_seen(job), last, missed


def _unknown(job_id: str) -> ProblemError:
    return ProblemError("unknown_visualization", f"there is no visualization {job_id!r}")


async def _of(request: Request) -> Gateway:
    """Of the caller; for a route about a job, whoever may not see it is told that there is none."""
    check_names(request)
    gateway: Gateway = request.app.state.gateway
    job_id = request.path_params.get("job_id")
    if job_id is not None and not JOB_ID.fullmatch(job_id):
        job_id = None  # the route refuses it
    return await gateway.on_behalf_of(request.scope["state"][STATE], job_id)


GatewayDep = Annotated[Gateway, Depends(_of)]
