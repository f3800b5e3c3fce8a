"""How a run ended, in the words of `workers.queue.leases.Leases.close`, from what its task returned or
raised.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

from proxygrad.errors import DeadlineExceeded, ProxyGradError, RenderCanceled
from proxygrad.protocol.problems import Problem
from workers.jobs.repository import Job
from workers.queue.leases import Outcome

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOutcome:
    """``fields`` for the job's record; ``exc_string``: what RQ keeps of a failure; ``about``: for the log."""

    outcome: Outcome
    fields: Mapping[str, str | int | float] = field(default_factory=dict)
    exc_string: str = ""
    about: str = ""

    @classmethod
    def of(cls, job: Job) -> RunOutcome:
        """The job has succeeded."""
        return cls("succeeded", job.brief().to_fields(), about=job.about)

    @classmethod
    def by(cls, error: Exception, job_id: str) -> RunOutcome:
        """``error`` ended the run of that job. Logged: a line where foreseen, the traceback where not."""
        if isinstance(error, RenderCanceled):
            _log.info("job %s is %s", job_id, error)
            return cls("canceled")
        if isinstance(error, DeadlineExceeded):
            _log.info("job %s: %s", job_id, error)
            return cls("expired")
        if isinstance(error, ProxyGradError):
            _log.warning("job %s failed: %s: %s", job_id, error.code, error)
            problem = Problem(code=error.code, detail=str(error))
        else:
            _log.error("job %s failed unexpectedly", job_id, exc_info=error)
            detail = f"the worker met an unexpected {type(error).__name__}; its log has more"
            problem = Problem(code="internal_error", detail=detail)
        told = "".join(traceback.format_exception(error))
        return cls("failed", {"problem": problem.model_dump_json()}, told)
