"""A batch: its request, and its record in a hash of Redis."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

from pydantic import TypeAdapter

from proxygrad.protocol.base import EpochTime
from proxygrad.protocol.batches import BatchState, UnitState
from proxygrad.protocol.jobs import State
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import (
    BatchRequest,
    Priority,
    VisualizationRequest,
)
from proxygrad.spec import ModelInfo, Spec, VisualizationTemplate
from workers.batches import units
from workers.broker.limits import DEFAULT_KIND
from workers.jobs.kinds.base import JobKind
from workers.jobs.kinds.registry import kind_named
from workers.jobs.kinds.visualization import VISUALIZATION
from workers.jobs.requests import Limits

#: How the state of a unit that was queued is written; ``workers/lua/lib/batches.lua`` has the same letters. A
#: unit that was not queued has none: it waits, or ended with the rest (`BatchRecord.dropped`).
LETTERS: Mapping[str, State] = {
    "q": "queued",
    "r": "running",
    "s": "succeeded",
    "f": "failed",
    "c": "canceled",
}
COUNTED: tuple[State, ...] = ("queued", "running", "succeeded", "failed", "canceled")

_TIME: TypeAdapter[float] = TypeAdapter(EpochTime)


@dataclass(frozen=True, kw_only=True)
class ResolvedBatch:
    """A batch request resolved against a model: checked, with nothing left to default.

    ``first`` is the spec of the first of ``units``.
    """

    first: Spec
    units: Sequence[int]
    model: ModelInfo

    @classmethod
    def of(cls, request: BatchRequest, model: ModelInfo) -> Self:
        """Raises what `Spec.resolve` raises."""
        numbers = units.select(request.units, model.layer(request.layer))
        return cls(first=request.spec_of(numbers[0]).resolve(model), units=numbers, model=model)

    def identity(self, caller: str) -> str:
        """The batch's id: 32 hex digits over specs, weights and caller."""
        content = ["batch", self.first.identity(self.model), units.to_json(self.units), caller]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def to_fields(self) -> dict[str, str | int]:
        """Its fields of a record."""
        return {
            "kind": VISUALIZATION.name,
            "model": VISUALIZATION.capability(self.first.model),
            "layer": self.first.layer,
            "template": self.first.model_dump_json(exclude={"unit"}),
            "units": units.to_json(self.units),
            "total": len(self.units),
            "digest": self.model.digest,
            "engine_version": self.model.engine_version,
        }


@dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """One batch as it stands: of visualizations, as every batch so far. Times are seconds since 1970, UTC.

    ``counts`` has every state but `waiting`. ``dropped``: how units ended that were never put into the queue,
    for ``problem``.
    """

    id: str
    kind: JobKind
    caller: str
    state: BatchState
    template: VisualizationTemplate
    units: Sequence[int]
    digest: str
    engine_version: str
    counts: Mapping[State, int]
    priority: Priority
    limits: Limits
    deadline_at: float | None
    created_at: float
    finished_at: float | None
    cancel_requested: bool
    dropped: State | None
    problem: Problem | None

    @classmethod
    def from_fields(cls, batch_id: str, fields: Mapping[bytes, bytes]) -> Self:
        """The batch that a record's fields describe. Raises `UnknownKind`."""
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        deadline_at, finished_at, problem = (
            texts.get(name) for name in ("deadline_at", "finished_at", "problem")
        )
        return cls(
            id=batch_id,
            kind=kind_named(texts.get("kind", DEFAULT_KIND)),
            caller=texts["caller"],
            state=cast(BatchState, texts["state"]),
            template=VisualizationTemplate.model_validate_json(texts["template"]),
            units=units.from_json(texts["units"]),
            digest=texts["digest"],
            engine_version=texts["engine_version"],
            counts={state: int(texts[state]) for state in COUNTED},
            priority=cast(Priority, texts["priority"]),
            limits=Limits(**json.loads(texts["limits"])),
            deadline_at=_TIME.validate_python(deadline_at) if deadline_at else None,
            created_at=_TIME.validate_python(texts["created_at"]),
            finished_at=_TIME.validate_python(finished_at) if finished_at else None,
            cancel_requested="cancel_requested" in texts,
            dropped=cast("State | None", texts.get("dropped")),
            problem=Problem.model_validate_json(problem) if problem else None,
        )

    @property
    def ended(self) -> bool:
        """Whether the state will not change any more by itself."""
        return self.state != "running"

    @property
    def waiting(self) -> int:
        """How many units were not put into the queue yet."""
        return len(self.units) - sum(self.counts.values())

    def request_of(self, unit: int, now_s: float) -> VisualizationRequest:
        """The request of one unit, at the time ``now_s``."""
        options: dict[str, Any] = {"priority": self.priority, "deadline_s": None}
        if self.deadline_at is not None:
            options["deadline_s"] = max(0.001, self.deadline_at - now_s)
        given = {*VisualizationTemplate.model_fields, "unit", "priority"}
        return VisualizationRequest.model_construct(
            _fields_set=given, **dict(self.template), unit=unit, **options
        )

    def unit(self, number: int, mark: bytes | None) -> Unit:
        """One of its units, from its field among the units."""
        if mark is None:
            problem = self.problem if self.dropped else None
            return Unit(number, None, self.dropped or "waiting", problem=problem)
        letter, job_id, detail = mark.decode().split(" ", 2)
        state = LETTERS[letter]
        if not detail:
            return Unit(number, job_id, state)
        if state != "succeeded":
            return Unit(number, job_id, state, problem=Problem.model_validate_json(detail))
        activation, _, best = detail.partition(" ")
        return Unit(number, job_id, state, float(activation), int(best or 0))


@dataclass(frozen=True)
class Unit:
    """One unit of a batch: its job, where it has one, and its state.

    ``activation`` is that of the image number ``best`` of a job that succeeded.
    """

    number: int
    job_id: str | None
    state: UnitState
    activation: float | None = None
    best: int = 0
    problem: Problem | None = None


def limits_json(limits: Limits) -> str:
    """As a record has them."""
    return json.dumps(asdict(limits))
