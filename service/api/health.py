"""Health checks: `/startupz`, `/livez` and `/readyz`.

Any query parameters are accepted: the probes of some platforms send them.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.backend.backend import Backend
from service.problems import ProblemError, problem_responses
from workers.broker.safety import unsafe_settings
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
    warnings: list[str] = Field(
        description="What an operator should see to: settings of Redis under which accepted jobs may be "
        "lost, and workers that publish something that this gateway cannot read.",
    )


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
    fleet = await backend.call(catalog.read, backend.redis)
    if not fleet.workers:
        raise ProblemError(
            "no_worker", "Redis answers, but no worker is alive; start one with `python -m workers`"
        )
    warnings = [
        *(await backend.call(unsafe_settings, backend.redis)).values(),
        *(f"worker {worker} publishes something that cannot be read here" for worker in fleet.unreadable),
    ]
    return Ready(workers=len(fleet.workers), warnings=warnings)


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend
