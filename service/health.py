"""Is the process alive, and can it answer: `/livez` and `/readyz`."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.gateway import GatewayDep
from service.problems import Refusal, documented
from workers import catalog

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = Field(default="alive", description="`alive`.", examples=["alive"])


class Ready(BaseModel):
    """Redis answers and at least one worker lives."""

    status: str = Field(default="ready", description="`ready`.", examples=["ready"])
    workers: int = Field(description="How many workers are alive.", examples=[1])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> Alive:
    """Answers as long as the process does; asks nobody else."""
    return Alive()


@router.get(
    "/readyz", summary="Can requests be answered?", responses=documented("no_worker", "redis_unavailable")
)
async def readyz(gateway: GatewayDep) -> Ready:
    """Ready when Redis answers and a worker is alive; otherwise 503 says which of them is missing."""
    workers = await gateway.call(catalog.live_workers, gateway.redis)
    if not workers:
        raise Refusal(
            "no_worker", "Redis answers, but no worker is alive; start one with `python -m workers`"
        )
    return Ready(workers=len(workers))
