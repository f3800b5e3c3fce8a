"""Has the process started, is it alive, can it answer: `/startupz`, `/livez` and `/readyz`.

Probes are answered whatever parameters they come with: those of others have some.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.backend.gateway import Gateway
from service.problems import ProblemError, problem_responses
from workers.fleet import catalog

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = Field(default="alive", description="`alive`.", examples=["alive"])


class Started(BaseModel):
    """Redis has answered this process."""

    status: str = Field(default="started", description="`started`.", examples=["started"])


class Ready(BaseModel):
    """Redis answers and at least one worker lives."""

    status: str = Field(default="ready", description="`ready`.", examples=["ready"])
    workers: int = Field(description="How many workers are alive.", examples=[1])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> Alive:
    """Answers as long as the process does; asks nobody else."""
    return Alive()


@router.get("/startupz", summary="Has the process started?", responses=problem_responses("redis_unavailable"))
async def startupz(request: Request) -> Started:
    """Started once Redis has answered for the first time, and from then on."""
    await _gateway(request).start()
    return Started()


@router.get(
    "/readyz",
    summary="Can requests be answered?",
    responses=problem_responses("no_worker", "redis_unavailable"),
)
async def readyz(request: Request) -> Ready:
    """Ready when Redis answers and a worker is alive; otherwise 503 says which of them is missing."""
    gateway = _gateway(request)
    workers = await gateway.call(catalog.live_workers, gateway.redis)
    if not workers:
        raise ProblemError(
            "no_worker", "Redis answers, but no worker is alive; start one with `python -m workers`"
        )
    return Ready(workers=len(workers))


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
