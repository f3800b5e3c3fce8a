"""Submissions: what a request puts into the queue, and the limits that apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from proxygrad.protocol.requests import ANONYMOUS, Priority
from proxygrad.spec import ModelInfo
from workers.jobs.job import JobSpec
from workers.jobs.kinds.base import JobKind, JobRequest


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait, in all and of one caller: what runs does not count there.

    ``in_flight``: how many jobs that one caller was the first to request may wait or run; None: no bound.
    """

    queued: int = 10_000
    queued_per_caller: int = 2_000
    in_flight: int | None = None


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job to be submitted: spec, caller and options. ``cost`` is that of `JobSpec.cost`.

    ``exact``: `JobKind.exact_capability` of the model that was asked; a retry keeps that of the record.
    """

    job_id: str
    kind: JobKind
    spec: JobSpec
    cost: float
    priority: Priority = "interactive"
    deadline_s: float | None = None
    caller: str = ANONYMOUS
    flow: str | None = None
    webhook: str | None = None
    exact: str = ""

    @classmethod
    def of(cls, kind: JobKind, request: JobRequest, model: ModelInfo, caller: str, flow: str | None) -> Self:
        """The submission of ``request`` to ``model``. Raises what `RequestedSpec.resolve` raises."""
        spec = request.spec.resolve(model)
        return cls(
            job_id=spec.resolved_identity(model),
            kind=kind,
            spec=spec,
            cost=spec.cost(model),
            priority=request.priority,
            deadline_s=request.deadline_s,
            caller=caller,
            flow=flow,
            webhook=request.webhook,
            exact=kind.exact_capability(model),
        )
