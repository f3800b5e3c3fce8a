"""What the computation of a kind of job offers to the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from workers.execution.run import JobRun


class Artifacts(Protocol):
    """What a run computed, to be stored."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """The artifacts by name, in the order in which they are stored."""

    def accepts(self, name: str, stored: bytes) -> bool:
        """Whether an artifact that an earlier run stored counts: whole, and of the same job and weights."""

    def fields(self, stored: Mapping[str, bytes]) -> Mapping[str, object]:
        """The fields of the record: the result, and the artifacts as the store has them, by name."""


#: Computes a job of one kind. Raises `LeaseLost`, `GivenBack`, `RenderCanceled` and errors of the job.
Computation: TypeAlias = Callable[[JobRun, Any], Artifacts]
