"""Calls of the job repository that block: operations run here in the test's own thread."""

from __future__ import annotations

from proxygrad.protocol.requests import ANONYMOUS, VisualizationRequest
from proxygrad.spec import ModelInfo, Spec
from workers.batches.expander import BatchExpander
from workers.broker.pipeline import run_blocking
from workers.execution.context import WorkerContext
from workers.jobs.kinds.visualization import VISUALIZATION, VisualizationJob
from workers.jobs.queries import Requester
from workers.jobs.repository import DEFAULT_LIMITS, Jobs
from workers.jobs.requests import Limits, Submission


def submit(
    jobs: Jobs,
    spec: Spec,
    model: ModelInfo,
    *,
    caller: str = ANONYMOUS,
    flow: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[VisualizationJob, bool]:
    """`Jobs.submit` of a spec, which may be a `VisualizationRequest` with options."""
    request = spec if isinstance(spec, VisualizationRequest) else VisualizationRequest.of(spec)
    submission = Submission.of(VISUALIZATION, request, model, caller, flow)
    job, created = run_blocking(jobs.submit(submission, limits), jobs._redis)
    assert isinstance(job, VisualizationJob)
    return job, created


def requester(jobs: Jobs, job_id: str, caller: str) -> Requester | None:
    """`Jobs.requester`."""
    return jobs.requester(job_id, caller)(jobs._redis)


def expander(context: WorkerContext) -> BatchExpander:
    """The batch expander of a worker process."""
    return BatchExpander(context.redis, context.jobs, context.models, context.stopping, context.batches_told)
