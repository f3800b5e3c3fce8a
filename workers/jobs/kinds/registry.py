"""The kinds of jobs by name, and how records of any kind are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from proxygrad.spec import ModelInfo
from workers.broker.limits import DEFAULT_KIND
from workers.errors import UnknownKind, UnreadableRecord
from workers.jobs.job import Job
from workers.jobs.kinds.attribution import ATTRIBUTION
from workers.jobs.kinds.base import JobKind
from workers.jobs.kinds.visualization import VISUALIZATION

KINDS: Mapping[str, JobKind] = {kind.name: kind for kind in (VISUALIZATION, ATTRIBUTION)}


class _Head(BaseModel):
    kind: str = DEFAULT_KIND


def kind_named(name: str) -> JobKind:
    """The kind of that name. Raises `UnknownKind`."""
    kind = KINDS.get(name)
    if kind is None:
        raise UnknownKind(name, KINDS)
    return kind


def job_from_fields(job_id: str, fields: Mapping[bytes, bytes]) -> Job:
    """The job that a record's fields describe. Raises `UnknownKind` and `UnreadableRecord`."""
    try:
        return kind_of(fields).record.from_fields(job_id, fields)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableRecord("job", job_id, error) from error


def kind_of(fields: Mapping[bytes, bytes]) -> JobKind:
    """The kind of a record. Raises `UnknownKind`."""
    return kind_named(fields.get(b"kind", DEFAULT_KIND.encode()).decode(errors="replace"))


def job_from_json(data: bytes) -> Job:
    """The job of a stored record. Raises `UnknownKind`, and `ValidationError` where it is damaged."""
    name = _Head.model_validate_json(data).kind
    return kind_named(name).record.model_validate_json(data)


def capabilities(model: str) -> tuple[str, ...]:
    """What a worker of this version that serves the model offers, for jobs of every kind."""
    return tuple(kind.capability(model) for kind in KINDS.values())


def offered(models: Iterable[tuple[str, ModelInfo]]) -> list[str]:
    """What a worker offers that has these models ready, each with its name: by name, and exactly."""
    return [
        capability
        for name, model in models
        for by_name in capabilities(name)
        for capability in (by_name, f"{by_name}@{model.version}")
    ]


def listed_fields() -> tuple[str, ...]:
    """What a list reads of records of any kind."""
    return tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.record.listed_fields))
