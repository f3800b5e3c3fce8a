"""A job's record, whatever its kind: its fields, and how Redis and the store have them.

Each kind has a subclass with its spec and result (`workers.jobs.kinds`). The spec of a job never changes and
is read each time that the job is looked at, so parsed specs are cached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, ClassVar, Protocol, Self, cast, runtime_checkable

from pydantic import ConfigDict, Field, TypeAdapter

from proxygrad.protocol.base import EpochTime, Record
from proxygrad.protocol.jobs import ArtifactInfo, State
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import ANONYMOUS, Priority
from proxygrad.spec import ModelInfo
from workers.cache import LRUCache


@runtime_checkable
class JobSpec(Protocol):
    """What a job computes: a frozen pydantic model. Resolved, with nothing left to default."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def steps(self) -> int:
        """Steps in which progress is counted."""

    def cost(self, model: ModelInfo, /) -> float:
        """The cost by which the queue shares turns."""

    def identity(self, model: ModelInfo, /) -> str:
        """The id of the job, 32 hex digits: a hash of kind, spec, weights and method."""

    def resolved_identity(self, model: ModelInfo, /) -> str:
        """`identity` of a spec that is resolved."""

    def model_dump_json(self) -> str:
        """The spec as JSON."""


#: Parsed specs that are cached, those used last; one takes 3.5 KB.
_CACHED_SPECS = 1024
_specs: LRUCache[tuple[type[Job], str], JobSpec] = LRUCache(_CACHED_SPECS)


def spec_to_json(spec: JobSpec, record: type[Job]) -> str:
    """The spec as a record of that type has it."""
    text = spec.model_dump_json()
    _specs.put((record, text), spec)
    return text


def spec_from_json(text: str, record: type[Job]) -> JobSpec:
    """The spec in a record of that type, perhaps of a newer version. Raises `ValidationError`."""
    spec = _specs.get((record, text))
    if spec is None:
        spec = cast(JobSpec, _stored_spec(record).validate_json(text))
        _specs.put((record, text), spec)
    return spec


@cache
def _stored_spec(record: type[Job]) -> TypeAdapter[Any]:
    field = record.model_fields["spec"]
    stored: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(stored)


class CheckpointReference(Record):
    """Where the store keeps the state of a run after ``step`` steps, for another run to go on from."""

    step: int
    path: str


@dataclass(frozen=True)
class QueuePlace:
    """How many jobs were ``ahead`` of one that waits, and whether a live worker would have ``taken`` it.

    ``eta_s``: until its end, as is expected by the latest runs; None where there were none. It passes with
    the moment: two jobs that differ in nothing else are equal.
    """

    ahead: int = field(default=0, compare=False)
    taken: bool = field(default=False, compare=False)
    eta_s: float | None = field(default=None, compare=False)


class Job(Record):
    """One requested job, its state and its result. Times are seconds since 1970, UTC.

    ``step`` of ``steps`` are done, with ``activation`` at that step, and at the end that of the result.
    ``worker`` computes it or did; ``losses`` counts the workers that died with it; ``cost`` is that of
    `JobSpec.cost`. What follows the problem and the cost matters until the end, and is in Redis alone.
    ``expected_at``: when a run should end. ``place``: that of one that waits, where it was looked at.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    #: Fields of a record that hold JSON; the others are plain text.
    json_fields: ClassVar[frozenset[str]] = frozenset({"spec", "result", "problem", "checkpoint", "place"})
    #: Fields that only a job that succeeded has.
    result_fields: ClassVar[tuple[str, ...]] = ("result",)
    #: What a list shows of a job: all but the result, which is most of a record.
    listed_fields: ClassVar[tuple[str, ...]] = (
        *("kind", "spec", "state", "created_at", "started_at", "finished_at", "step", "steps"),
        *("activation", "problem", "priority"),
    )

    id: str
    kind: str
    spec: JobSpec
    state: State
    created_at: EpochTime
    started_at: EpochTime | None = None
    finished_at: EpochTime | None = None
    step: int = 0
    steps: int
    activation: float | None = None
    worker: str | None = None
    losses: int = 0
    result: Any = None
    problem: Problem | None = None
    cost: float = 0.0
    priority: Priority = Field(default="interactive", exclude=True)
    caller: str = Field(default=ANONYMOUS, exclude=True)
    deadline_at: EpochTime | None = Field(default=None, exclude=True)
    checkpoint: CheckpointReference | None = Field(default=None, exclude=True)
    cancel_requested: float | None = Field(default=None, exclude=True)
    expected_at: float | None = Field(default=None, exclude=True)
    place: QueuePlace = Field(default=QueuePlace(), exclude=True)

    @property
    def artifacts(self) -> Mapping[str, ArtifactInfo]:
        """The stored files of a job that succeeded, by name."""
        return {}

    @property
    def is_whole(self) -> bool:
        """Whether it has all of its result: Redis keeps no part that is long (`brief`)."""
        return True

    def brief(self) -> Self:
        """The job as Redis keeps it: without what is long, and in the store only."""
        return self

    def completed(self, stored: Job | None) -> Self:
        """The job with what `brief` left out, from the stored record of the same result."""
        return self

    @property
    def about(self) -> str:
        """What it computes, for the log."""
        return f"{self.kind} of {self.spec.model}"

    @property
    def achieved(self) -> float | None:
        """The activation that a job which succeeded has achieved."""
        return self.activation

    @property
    def unit_detail(self) -> str:
        """What a batch notes of a job that succeeded, as `unit_detail` of ``workers/lua/lib/batches.lua``."""
        return "" if self.achieved is None else repr(self.achieved)

    def eta_s(self, now_s: float) -> float | None:
        """Seconds until its end, as expected at the time ``now_s``; None where there is no estimate."""
        if self.state == "running" and self.expected_at is not None:
            return max(0.0, self.expected_at - now_s)
        return self.place.eta_s if self.state == "queued" else None

    @property
    def ended(self) -> bool:
        """Whether the state will not change any more by itself."""
        return self.state in ("succeeded", "failed", "canceled")

    @property
    def waited_s(self) -> float | None:
        """Seconds from submission to the start of the run that counts; None before."""
        return None if self.started_at is None else self.started_at - self.created_at

    @property
    def ran_s(self) -> float | None:
        """Seconds from that start to the end; None before."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at

    def as_withdrawn(self, at: float) -> Self:
        """The job as a caller sees it who withdrew at that time, whatever it is to the others."""
        if self.ended and (self.finished_at or 0.0) <= at:
            return self
        began = self.started_at is not None and self.started_at <= at
        unseen: dict[str, object] = {} if began else {"started_at": None, "step": 0, "activation": None}
        own = type(self).model_fields
        no_result = {name: own[name].default for name in (*self.result_fields, "problem")}
        return self.model_copy(update={"state": "canceled", "finished_at": at, **no_result, **unseen})

    @classmethod
    def from_fields(cls, job_id: str, fields: Mapping[bytes, bytes]) -> Self:
        """The job that a record's fields describe; `workers.jobs.kinds.registry` finds its kind."""
        texts = {name: fields[name.encode()].decode() for name in cls.model_fields if name.encode() in fields}
        parsed: dict[str, object] = {
            name: json.loads(text) if name in cls.json_fields and name != "spec" else text
            for name, text in texts.items()
        }
        return cls.model_validate({**parsed, "id": job_id, "spec": spec_from_json(texts["spec"], cls)})

    def to_fields(self) -> dict[str, str | int | float]:
        """The record's fields that describe this job. A field that is None is left out; within a field,
        nulls are written: its reader may require them.
        """
        values = self.model_dump(mode="json", exclude={"id"})
        return {
            name: json.dumps(value) if name in self.json_fields else value
            for name, value in values.items()
            if value is not None
        }
