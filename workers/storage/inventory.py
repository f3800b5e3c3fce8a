"""The inventory of artifacts: what the store holds, job by job.

Whatever else a store holds (`workers.storage.paths` says what is a job's) is neither counted nor touched.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Self

from workers.storage.paths import is_checkpoint, job_of, result_path
from workers.storage.store import Store, Stored


@dataclass(frozen=True)
class JobArtifacts:
    """Everything in the store of one job, by path."""

    job_id: str
    artifacts: tuple[Stored, ...]

    @classmethod
    def of(cls, job_id: str, artifacts: Iterable[Stored]) -> Self:
        """Of these artifacts, in whatever order they come."""
        return cls(job_id, tuple(sorted(artifacts)))

    @property
    def size_bytes(self) -> int:
        """Of all artifacts."""
        return sum(artifact.size_bytes for artifact in self.artifacts)

    @property
    def answered_at(self) -> float | None:
        """When the record was written; None while there is no answer. An empty record is none."""
        record = result_path(self.job_id)
        found = (each.modified_at for each in self.artifacts if each.path == record and each.size_bytes)
        return next(found, None)

    @property
    def touched_at(self) -> float:
        """When anything of it was last written."""
        return max(artifact.modified_at for artifact in self.artifacts)

    @property
    def record_first(self) -> list[Stored]:
        """The order in which to remove it: a record is never there without its images."""
        return sorted(self.artifacts, key=lambda artifact: artifact.path != result_path(self.job_id))

    @property
    def checkpoints(self) -> list[Stored]:
        """Where its job could go on."""
        return [each for each in self.artifacts if is_checkpoint(each.path)]


def artifacts_by_job(store: Store, go_on: Callable[[], None]) -> Iterator[JobArtifacts]:
    """Every job of which the store has anything. ``go_on`` is called on the way; what it raises ends it.

    A store may list a folder in two parts, and jobs go on meanwhile: look at artifacts again before you
    act upon them.
    """
    ours = ((job_id, each) for each in store.list() if (job_id := job_of(each.path)))
    for job_id, found in groupby(ours, key=lambda pair: pair[0]):
        go_on()
        yield JobArtifacts.of(job_id, (artifact for _, artifact in found))


@dataclass
class Inventory:
    """One pass through the store: sums, and the ``most`` oldest of what might go.

    ``oldest``: answers written before ``before``, the oldest first. ``orphans``: what was not touched
    since ``before`` and has no record. ``strays``: checkpoints as old, beside an answer.
    """

    answers: int = 0
    size_bytes: int = 0
    oldest: list[JobArtifacts] = field(default_factory=list)
    orphans: list[JobArtifacts] = field(default_factory=list)
    strays: list[Stored] = field(default_factory=list)

    @classmethod
    def of(cls, held: Iterable[JobArtifacts], before: float, most: int) -> Self:
        """Takes O(n log ``most``) steps over n jobs and keeps O(``most``) of them in memory."""
        inventory = cls()
        heap: list[
            tuple[float, str, JobArtifacts]
        ] = []  # the youngest of the oldest is on top, and leaves first
        for job in held:
            inventory.size_bytes += job.size_bytes
            answered_at = job.answered_at
            if answered_at is None:
                if job.touched_at < before and len(inventory.orphans) < most:
                    inventory.orphans.append(job)
                continue
            inventory.answers += 1
            if len(inventory.strays) < most:
                inventory.strays += [each for each in job.checkpoints if each.modified_at < before]
            if answered_at < before:
                heapq.heappush(heap, (-answered_at, job.job_id, job))
                if len(heap) > most:
                    heapq.heappop(heap)
        inventory.oldest = [job for _, _, job in sorted(heap, reverse=True)]
        return inventory
