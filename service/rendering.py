"""Answers as they are sent: that of a job that succeeded is the same for all who may see it."""

from __future__ import annotations

from collections import OrderedDict

from service.answers import visualization
from workers.jobs import Job

#: Answers that are kept, those sent last; one takes 4 to 60 KB. As many as `workers.looks` keeps.
MOST_KEPT = 256


class Renderings:
    """The documents of jobs that succeeded, as JSON. For one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Job, bytes]] = OrderedDict()

    def __call__(self, job: Job, base: str) -> bytes:
        """The document of ``job``; ``base`` is the path of all visualizations.

        Made once for one object: whoever reads a job that has changed, or is seen otherwise, has another.
        """
        kept = self._kept.get(job.id)
        if kept is None or kept[0] is not job:
            kept = job, visualization(job, None, None, base, job.created_at).model_dump_json().encode()
        self._kept[job.id] = kept
        self._kept.move_to_end(job.id)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return kept[1]
