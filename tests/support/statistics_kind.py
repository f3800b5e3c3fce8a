"""A kind of job for tests: the mean activation of a layer on an image of one gray. Torch-free.

All that the kind is to queue, store, webhooks and gateway; `statistics_computation` computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, Field

from proxygrad.protocol.jobs import ArtifactInfo, State
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import JobOptions
from proxygrad.spec import ModelInfo
from proxygrad.spec.base import Frozen, Tolerant
from proxygrad.spec.identity import identity
from service.api import jobs
from service.api.dependencies import ID, job_session, known_form
from service.backend.long_polling import Wait
from service.backend.resources.base import JobResource
from service.backend.resources.session import JobSession
from service.settings import ServiceSettings
from workers.jobs.job import Job
from workers.jobs.kinds.base import JobKind

PATH = "/v1/statistics"
FILE = "statistics.json"


class StatisticsSpec(Frozen):
    """``steps``: how often it is measured."""

    model: str
    layer: str
    level: float = Field(default=0.5, ge=0, le=1)
    steps: int = 1

    def resolve(self, model: ModelInfo) -> StatisticsSpec:
        """The spec, of a layer that is there. Raises `UnknownLayer`."""
        model.layer(self.layer)
        return self

    def cost(self, model: ModelInfo) -> float:
        return float(self.steps)

    def identity(self, model: ModelInfo) -> str:
        return self.resolve(model).resolved_identity(model)

    def resolved_identity(self, model: ModelInfo) -> str:
        return identity(self, model, kind="statistics")


class StatisticsRequest(StatisticsSpec, JobOptions):
    """The body of a request."""

    @property
    def spec(self) -> StatisticsSpec:
        return StatisticsSpec(**{name: getattr(self, name) for name in StatisticsSpec.model_fields})


class StatisticsResult(Tolerant):
    mean: float


class StatisticsJob(Job):
    """The record."""

    json_fields = Job.json_fields | {"file"}
    result_fields = ("result", "file")

    kind: str = "statistics"
    spec: StatisticsSpec
    result: StatisticsResult | None = None
    file: ArtifactInfo | None = None

    @property
    def artifacts(self) -> Mapping[str, ArtifactInfo]:
        return {} if self.file is None else {FILE: self.file}


class StatisticsKind(JobKind):
    def event_data(self, state: str, activation: float | None) -> Mapping[str, Any]:
        return {"mean": activation}


STATISTICS = StatisticsKind("statistics", PATH, StatisticsJob)


class Statistics(BaseModel):
    """The document."""

    id: str
    state: State
    mean: float | None
    blocked: Problem | None


def document(job: StatisticsJob, position: int | None, blocked: Problem | None, now_s: float) -> Statistics:
    mean = None if job.result is None else job.result.mean
    return Statistics(id=job.id, state=job.state, mean=mean, blocked=blocked)


def check_limits(spec: StatisticsSpec, model: ModelInfo, settings: ServiceSettings) -> None:
    """None."""


RESOURCE = JobResource(
    STATISTICS, StatisticsRequest, document, check_limits, unknown="not_found", ended="visualization_ended"
)

router = APIRouter(prefix=PATH)
StatisticsId = Annotated[str, ID, known_form(RESOURCE.unknown, RESOURCE.kind.name)]
Session = Annotated[JobSession, Depends(job_session(RESOURCE))]


@router.post("")
async def create(session: Session, request: Request) -> Response:
    return await jobs.create(session, request)


@router.get("/{statistics_id}")
async def read(statistics_id: StatisticsId, session: Session, request: Request, wait: Wait = 0) -> Response:
    return await jobs.read(session, statistics_id, wait, request)


@router.post("/{statistics_id}/cancel")
async def cancel(statistics_id: StatisticsId, session: Session) -> Response:
    return await jobs.cancel(session, statistics_id)


@router.post("/{statistics_id}/retry")
async def retry(statistics_id: StatisticsId, session: Session) -> Response:
    return await jobs.retry(session, statistics_id)


@router.delete("/{statistics_id}")
async def delete(statistics_id: StatisticsId, session: Session) -> Response:
    return await jobs.delete(session, statistics_id)


@router.get("/{statistics_id}/events")
async def follow(
    statistics_id: StatisticsId, session: Session, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    return await jobs.follow(session, statistics_id, last_event_id, None)
