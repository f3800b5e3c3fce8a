"""A kind of job as a resource of the interface: its request, its document, its limits, its problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from pydantic import BaseModel

from proxygrad.protocol.problems import Problem, ProblemCode
from proxygrad.protocol.requests import JobOptions
from proxygrad.spec import ModelInfo
from service.problems import ProblemError
from service.settings import ServiceSettings
from service.web.links import link
from workers.jobs.job import Job
from workers.jobs.kinds.base import JobKind, JobRequest


class RequestBody(JobRequest, Protocol):
    """The body of a request for a job: a pydantic model with the fields of a spec, and job options."""

    @property
    def model(self) -> str: ...  # noqa: D102
    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...  # noqa: D102
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...  # noqa: D102
    def model_dump_json(self, *, exclude_unset: bool) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class JobResource:
    """A kind of job in the interface.

    ``request`` parses the body of a request, a `RequestBody`. ``document`` makes the document of a
    job from its record, its position in the queue, what blocks it, and the time in seconds since 1970.
    ``check_limits`` compares a resolved spec with the operator's limits; ``maxima`` gives those that are of a
    single field. ``unknown`` and ``ended`` are the problems of a job that does not exist for the caller, and
    of one whose end is in the way.
    """

    kind: JobKind
    request: type[JobOptions]
    document: Callable[[Any, int | None, Problem | None, float], BaseModel]
    check_limits: Callable[[Any, ModelInfo, ServiceSettings], None]
    unknown: ProblemCode
    ended: ProblemCode
    maxima: Callable[[ServiceSettings], Mapping[str, float]] = lambda settings: {}

    @property
    def parameter(self) -> str:
        """The name of the id in the paths of routes about one job."""
        return f"{self.kind.name}_id"

    def location(self, job_id: str) -> str:
        """The path of a job, as the caller sees it."""
        return link(f"{self.kind.path}/{job_id}")

    def unknown_job(self, job_id: str) -> ProblemError:
        """The problem of an id that does not exist for the caller."""
        return ProblemError(self.unknown, f"there is no {self.kind.name} {job_id!r}")

    def ended_job(self, job: Job, consequence: str) -> ProblemError:
        """The problem of a job that has ended, with what follows from that."""
        detail = f"{self.kind.name} {job.id} has ended: it {job.state}, and {consequence}"
        return ProblemError(self.ended, detail, state=job.state)
