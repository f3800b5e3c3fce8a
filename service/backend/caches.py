"""Answers as they are sent: that of a job that succeeded is the same for all who may see it."""

from __future__ import annotations

from service.schemas.visualizations import visualization
from workers.jobs.repository import Job
from workers.latest import Latest

#: Answers that are kept, those sent last; one takes 4 to 60 KB. As many as `workers.jobs.queries` keeps.
MOST_KEPT = 256


class ResponseCache:
    """The documents of jobs that succeeded, as JSON. For one event loop."""

    def __init__(self) -> None:
        self._kept: Latest[str, tuple[Job, bytes]] = Latest(MOST_KEPT)

    def __call__(self, job: Job, base: str) -> bytes:
        """The document of ``job``; ``base`` is the path of all visualizations.

        Made once for one object: whoever reads a job that has changed, or is seen otherwise, has another.
        """
        kept = self._kept.get(job.id)
        if kept is None or kept[0] is not job:
            kept = job, visualization(job, None, None, base, job.created_at).model_dump_json().encode()
            self._kept.put(job.id, kept)
        return kept[1]
