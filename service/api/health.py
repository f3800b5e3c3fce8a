"""Health checks: `/startupz`, `/livez` and `/readyz`.

Any query parameters are accepted: the probes of some platforms send them.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.backend.backend import Backend
from service.problems import ProblemError, problem_responses
from workers.fleet import catalog

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process responds."""

    status: str = Field(default="alive", description="`alive`.", examples=["alive"])


class Started(BaseModel):
    """Redis has responded to this process."""

    status: str = Field(default="started", description="`started`.", examples=["started"])


class Ready(BaseModel):
    """Redis responds and at least one worker is alive."""

    status: str = Field(default="ready", description="`ready`.", examples=["ready"])
    workers: int = Field(description="Number of live workers.", examples=[1])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> Alive:
    """Answers as long as the process runs; needs neither Redis nor a worker."""
    return Alive()


@router.get("/startupz", summary="Has the process started?", responses=problem_responses("redis_unavailable"))
async def startupz(request: Request) -> Started:
    """Started once Redis has responded for the first time."""
    await _backend(request).start()
    return Started()


@router.get(
    "/readyz",
    summary="Can requests be served?",
    responses=problem_responses("no_worker", "redis_unavailable"),
)
async def readyz(request: Request) -> Ready:
    """Ready if Redis responds and a worker is alive; otherwise 503 says which is missing."""
    backend = _backend(request)
    workers = await backend.call(catalog.live_workers, backend.redis)
    if not workers:
        raise ProblemError(
            "no_worker", "Redis answers, but no worker is alive; start one with `python -m workers`"
        )
    return Ready(workers=len(workers))


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend
