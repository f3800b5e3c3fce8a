"""From a job to its rendering: the model, a lane of the engine, and everything that may come in between.

While the lane runs, the slot's thread looks at it four times a second: it writes progress, keeps checkpoints,
and decides, when the process is to end, whether the job is finished here or put back.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from proxygrad.errors import CheckpointMismatch, LaneError, ModelError, RenderCanceled
from workers.errors import LeaseLost
from workers.execution.checkpoints import RunCheckpoints
from workers.execution.context import FutureProtocol, ProgressProtocol, RenderingProtocol
from workers.execution.run import JobRun
from workers.jobs.job import Job
from workers.jobs.kinds.visualization import VisualizationJob

#: Progress is written and a drain is noticed this often; the end, a cancellation and a lost lease at once.
PROGRESS_S = 0.25
#: A preview is made this often at most, and only while somebody watches.
PREVIEW_S = 1.0
#: While the process drains, longest wait for a step; after that the last checkpoint counts.
DRAIN_STEP_LIMIT_S = 2.0

_log = logging.getLogger(__name__)


def render(assignment: JobRun, job: VisualizationJob) -> RenderingProtocol:
    """Answer the question of ``job``.

    Raises what `proxygrad.engine.future.RenderFuture.result` and the models raise; `RenderCanceled` after a
    cancellation; `LeaseLost`; and `GivenBack` after putting the job back into the queue.
    """
    assignment.enter("loading")
    with assignment.runtime.models.lent(job.spec.model) as network:
        check(network, job)
        assignment.proceed()
        resumption = RunCheckpoints(assignment, job)
        ticket = _submit(assignment, job, network, resumption)
        try:
            _follow(assignment, ticket, resumption)
        except BaseException:
            ticket.cancel()
            raise
        return _result(assignment, ticket)


def check(network: Any, job: Job) -> None:
    """Raises `ModelError` where ``job`` was not asked of this network: of other weights, or another method.

    Its id says so: the weights may have changed while it waited, and what it would get is no answer to it.
    """
    if job.spec.identity(network.info) != job.id:
        raise ModelError(
            f"model {network.name!r} has other weights than when the question was asked; ask it again"
        )


def _submit(
    assignment: JobRun, job: VisualizationJob, network: Any, resumption: RunCheckpoints
) -> FutureProtocol:
    engine, state = assignment.runtime.engine, resumption.load()
    deadline_s = assignment.deadline_s(job.deadline_at)
    assignment.enter("computing")
    try:
        try:
            ticket = engine.submit(network, job.spec, deadline_s=deadline_s, checkpoint=state)
        except CheckpointMismatch as error:
            _log.warning("job %s starts over: %s", job.id, error)
            state = None
            ticket = engine.submit(network, job.spec, deadline_s=deadline_s)
    except RenderCanceled:
        give_up_engine(assignment)
        raise
    if state is not None:
        _log.info("job %s goes on from step %d", job.id, ticket.progress.step)
    elif job.step:
        assignment.runtime.leases.write(assignment.run, {"step": 0})
    assignment.watch(ticket, job.deadline_at)
    return ticket


def _follow(assignment: JobRun, ticket: FutureProtocol, resumption: RunCheckpoints) -> None:
    """Until the lane has ended. Raises `LeaseLost`, and `GivenBack` where the process ends sooner."""
    drain, written, shown_s = assignment.runtime.drain, ticket.progress.step, 0.0
    while not ticket.wait(PROGRESS_S):
        assignment.stay()
        if drain.begun.is_set() and not drain.fits(ticket.remaining_s):
            _put_back(assignment, ticket, resumption)
        if ticket.progress.step > written:
            progress = ticket.progress
            watched, written = _write_progress(assignment, progress, ticket.remaining_s), progress.step
            if watched and time.monotonic() - shown_s >= PREVIEW_S:
                shown_s = time.monotonic()
                _show(assignment, ticket)
            if resumption.due:
                resumption.save(ticket)


def _put_back(assignment: JobRun, ticket: FutureProtocol, resumption: RunCheckpoints) -> None:
    """Let another process go on from here."""
    began_s, kept = time.monotonic(), None
    if not assignment.runtime.drain.hurried:
        kept = resumption.save(ticket, DRAIN_STEP_LIMIT_S)
    if ticket.wait(0):
        return  # it ended meanwhile
    at = f" at step {kept}, kept in {time.monotonic() - began_s:.2f} s" if kept else ""
    assignment.give_back(f"the worker stops{at}")


def _write_progress(assignment: JobRun, progress: ProgressProtocol, remaining_s: float | None) -> bool:
    """Whether somebody watches. Raises `LeaseLost`."""
    fields: dict[str, str | int | float] = {"step": progress.step}
    if progress.activation is not None:
        fields["activation"] = progress.activation
    return assignment.runtime.leases.write(assignment.run, fields, remaining_s=remaining_s)


def _show(assignment: JobRun, ticket: FutureProtocol) -> None:
    """Let those who watch see the image so far. Raises `LeaseLost`."""
    step, png = ticket.progress.step, ticket.preview()
    if png is not None:
        assignment.runtime.leases.show(assignment.run, step, png)


def _result(assignment: JobRun, ticket: FutureProtocol) -> RenderingProtocol:
    try:
        return ticket.result()
    except RenderCanceled:
        assignment.stay()
        if not assignment.canceled.is_set():
            give_up_engine(assignment)
        raise
    except LaneError as error:
        of_device(assignment, error)
        raise


def of_device(assignment: JobRun, error: LaneError) -> None:
    """Raises `LeaseLost`, and ends the process, where ``error`` is one of the device."""
    if _is_of_device(error):
        _give_up_device(assignment, error)


def _is_of_device(error: LaneError) -> bool:
    import torch  # loaded long since where a device computes; a worker without torch has none

    return isinstance(error.__cause__, torch.AcceleratorError)


def give_up_engine(assignment: JobRun) -> None:
    """It cancels by itself only when it ends, which is no fault of the job. Raises `GivenBack`."""
    if not assignment.runtime.stopping.is_set():
        assignment.runtime.drain.begin(fault="the engine has ended")
    assignment.give_back("the engine has ended")


def _give_up_device(assignment: JobRun, error: LaneError) -> None:
    """After such an error every operation on a GPU fails: this process would fail whatever it was given.

    The job may have caused it, so it counts as lost: raises `LeaseLost` before the lease has ended.
    """
    assignment.runtime.drain.begin(fault=f"the device failed: {error}")
    raise LeaseLost(f"job {assignment.run.job_id} is left to the janitors: the device failed")
