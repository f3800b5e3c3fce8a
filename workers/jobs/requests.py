"""Requests for jobs: the visualization that is requested, job options, and the limits that apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, Field

from proxygrad.spec import ModelInfo, Spec
from workers.broker.limits import ANONYMOUS

Priority = Literal["interactive", "batch"]

MAX_DEADLINE_S = 86_400.0
MAX_URL_LENGTH = 2000


class JobOptions(BaseModel):
    """Job options: priority, deadline and webhook, none of which is part of the id."""

    priority: Priority = Field(
        default="interactive",
        description="`interactive` goes before `batch`, always. Not part of the id: asked with both, it is "
        "`interactive`.",
    )
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Seconds from now after which the answer is of no use: the job fails then, waiting or "
        "running. Not part of the id: of several deadlines the latest counts, and none is later than any.",
    )
    webhook: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_URL_LENGTH,
        description="URL that is told of the end, with a signature, at a host that the operator has allowed. "
        "Not part of the id; asked with several, each is told.",
        examples=["https://hooks.example.org/proxygrad"],
    )


class VisualizationRequest(Spec, JobOptions):
    """A spec with job options: the body of a request."""

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """``spec`` with default options."""
        return cls.model_construct(_fields_set=set(spec.model_fields_set), **dict(spec))

    @property
    def spec(self) -> Spec:
        """The spec alone; fields that were set explicitly still count as set."""
        fields = Spec.model_fields
        values = {name: getattr(self, name) for name in fields}
        return Spec.model_construct(_fields_set=self.model_fields_set & fields.keys(), **values)


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
    """A job to be submitted: spec, caller and options. ``cost`` is that of `Spec.cost`."""

    job_id: str
    spec: Spec
    cost: float
    priority: Priority = "interactive"
    deadline_s: float | None = None
    caller: str = ANONYMOUS
    flow: str | None = None
    webhook: str | None = None

    @classmethod
    def of(cls, request: VisualizationRequest, model: ModelInfo, caller: str, flow: str | None) -> Self:
        """The submission of ``request`` to ``model``. Raises what `Spec.resolve` raises."""
        spec = request.spec.resolve(model)
        return cls(
            job_id=spec.resolved_identity(model),
            spec=spec,
            cost=spec.cost(model),
            priority=request.priority,
            deadline_s=request.deadline_s,
            caller=caller,
            flow=flow,
            webhook=request.webhook,
        )
