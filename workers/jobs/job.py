"""A job's record: its fields, and how they are written in a hash of Redis and in the store.

The spec of a job never changes and is read each time that the job is looked at, so parsed specs are cached.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import Field, TypeAdapter

from proxygrad.protocol.base import Record
from proxygrad.protocol.jobs import State
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import ANONYMOUS, Priority
from proxygrad.protocol.visualizations import ImageInfo
from proxygrad.spec import Result, Spec, StoredSpec
from workers.cache import LRUCache

_STORED_SPEC: TypeAdapter[Spec] = TypeAdapter(StoredSpec)
#: Parsed specs that are cached, those used last; one takes 3.5 KB.
_CACHED_SPECS = 1024
_specs: LRUCache[str, Spec] = LRUCache(_CACHED_SPECS)


def spec_to_json(spec: Spec) -> str:
    """The spec as a record has it."""
    text = spec.model_dump_json()
    _specs.put(text, spec)
    return text


def spec_from_json(text: str) -> Spec:
    """The spec in a record, perhaps one of a newer version. Raises `ValidationError`."""
    spec = _specs.get(text)
    if spec is None:
        spec = _STORED_SPEC.validate_json(text)
        _specs.put(text, spec)
    return spec


#: How the fields of the record that hold JSON are read; the others are plain text.
_READ: Mapping[str, Callable[[str], object]] = {
    "spec": spec_from_json,
    **dict.fromkeys(("result", "images", "problem", "checkpoint", "place"), json.loads),
}


class Checkpoint(Record):
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
    """One requested visualization, its state and its result. Times are seconds since 1970, UTC.

    ``step`` of ``steps`` are done, with ``activation`` at that step; ``worker`` computes it or did;
    ``losses`` counts the workers that died with it; ``best`` is the number of the image that counts, as
    `Result.best`; ``cost`` is that of `Spec.cost`. What follows the problem and the cost matters until the
    end, and is in Redis alone. ``expected_at``: when a run should end. ``place``: that of one that waits,
    where it was looked at.
    """

    id: str
    spec: StoredSpec
    state: State
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    step: int = 0
    steps: int
    activation: float | None = None
    worker: str | None = None
    losses: int = 0
    result: Result | None = None
    images: tuple[ImageInfo, ...] = ()
    best: int = 0
    problem: Problem | None = None
    cost: float = 0.0
    priority: Priority = Field(default="interactive", exclude=True)
    caller: str = Field(default=ANONYMOUS, exclude=True)
    deadline_at: float | None = Field(default=None, exclude=True)
    checkpoint: Checkpoint | None = Field(default=None, exclude=True)
    cancel_requested: float | None = Field(default=None, exclude=True)
    expected_at: float | None = Field(default=None, exclude=True)
    place: QueuePlace = Field(default=QueuePlace(), exclude=True)

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

    def as_withdrawn(self, at: float) -> Job:
        """The job as a caller sees it who withdrew at that time, whatever it is to the others."""
        if self.ended and (self.finished_at or 0.0) <= at:
            return self
        began = self.started_at is not None and self.started_at <= at
        unseen: dict[str, object] = {} if began else {"started_at": None, "step": 0, "activation": None}
        no_result = {"result": None, "images": (), "problem": None}
        return self.model_copy(update={"state": "canceled", "finished_at": at, **no_result, **unseen})

    @classmethod
    def from_fields(cls, job_id: str, fields: Mapping[bytes, bytes]) -> Job:
        """The job that a record's fields describe."""
        texts = {name: fields[name.encode()].decode() for name in cls.model_fields if name.encode() in fields}
        parsed = {name: _READ[name](text) if name in _READ else text for name, text in texts.items()}
        return cls.model_validate({**parsed, "id": job_id})

    def to_fields(self) -> dict[str, str | int | float]:
        """The record's fields that describe this job. A field that is None is left out; within a field,
        nulls are written: its reader may require them.
        """
        values = self.model_dump(mode="json", exclude={"id"})
        return {
            name: json.dumps(value) if name in _READ else value
            for name, value in values.items()
            if value is not None
        }
