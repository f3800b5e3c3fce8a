"""What every route needs: the settings, the queue, the catalogue and the store, without blocking.

Redis and the store are reached by short blocking calls in a thread each; a long wait is a coroutine
that sleeps between such calls and holds no thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, TypeVar, TypeVarTuple

from anyio import to_thread
from fastapi import Depends, Request
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from proxygrad.errors import UnknownModel
from proxygrad.spec import ModelInfo
from service.problems import Refusal
from service.settings import Settings
from workers import catalog
from workers.catalog import ServedModel
from workers.jobs import Job, Jobs, image_path, result_path
from workers.storage import Store

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Pause between two looks at a job that somebody waits for; nobody sees a tenth of a second.
WAIT_POLL_S = 0.1
#: After Redis let a call time out, calls are refused at once for this long; then one looks again, alone,
#: while the others are still refused for at most `LOOK_S`. So a frozen Redis costs a caller one timeout at
#: most, instead of a place in a growing line of threads.
SILENCE_S = 1.0
LOOK_S = 5.0


class Gateway:
    """One process's access to queue, catalogue and store."""

    def __init__(self, settings: Settings, redis: Redis, store: Store) -> None:
        self.settings = settings
        self.redis = redis
        self.store = store
        self.jobs = Jobs(redis, store)
        self._silent_until_s = 0.0
        self._closing = False

    def close(self) -> None:
        """Let every long wait return at once with what it has, so that the process can stop."""
        self._closing = True

    async def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a short blocking `function` of Redis in a thread."""
        return await to_thread.run_sync(self._guarded, function, args)

    def _guarded(self, function: Callable[[*Ts], T], args: tuple[*Ts]) -> T:
        if self._silent_until_s:
            if time.monotonic() < self._silent_until_s:
                raise RedisTimeout("Redis let a call time out a moment ago")
            self._silent_until_s = time.monotonic() + LOOK_S
        try:
            outcome = function(*args)
        except RedisTimeout:
            self._silent_until_s = time.monotonic() + SILENCE_S
            raise
        self._silent_until_s = 0.0
        return outcome

    async def served(self) -> dict[str, ServedModel]:
        """What live workers serve; refuses with `no_worker` when none lives."""
        served = await self.call(catalog.served, self.redis)
        if not served and not await self.call(catalog.live_workers, self.redis):
            raise Refusal(
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
        served = await self.served_model(name)
        if served.info is None:
            reason = served.problem.detail if served.problem else "its worker gave no reason"
            raise Refusal("model_unavailable", f"model {name!r} could not be loaded: {reason}")
        return served.info

    async def job(self, job_id: str) -> Job:
        """The job of that id; refuses with `unknown_visualization`."""
        job = await self.call(self.jobs.fetch, job_id)
        if job is None:
            raise Refusal("unknown_visualization", f"there is no visualization {job_id!r}")
        return job

    async def image(self, job_id: str, number: int) -> bytes | None:
        """The picture, from the store alone: Redis need not answer. `None` until the job ended well."""
        if not await to_thread.run_sync(self.store.exists, result_path(job_id)):
            return None
        return await to_thread.run_sync(self.store.get, image_path(job_id, number))

    async def ended(self, job_id: str, wait_s: float, request: Request) -> Job:
        """The job when it has ended, or as it stands after `wait_s` seconds or when the caller went away."""
        deadline_s = time.monotonic() + wait_s
        job = await self.job(job_id)
        while not job.ended and not self._closing:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or await request.is_disconnected():
                break
            await asyncio.sleep(min(WAIT_POLL_S, left_s))
            job = await self.job(job_id)
        return job


def _of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDep = Annotated[Gateway, Depends(_of)]
