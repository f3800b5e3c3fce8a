"""Whatever a stored document holds that its writer accepts, its reader gives back, by generated values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import BatchRequest
from tests.service.scenarios.test_stored_documents import DOCUMENTS, complete_job, optional_places, without
from tests.support.model_on_paper import MODEL
from workers.batches.batch import COUNTED, BatchRecord, ResolvedBatch, limits_json
from workers.jobs.job import Job
from workers.jobs.kinds.registry import KINDS, job_from_fields
from workers.jobs.kinds.visualization import VisualizationJob
from workers.jobs.requests import Limits
from workers.webhooks import DeliveryRecord

generated = settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)

#: Text that Redis, JSON and a terminal take differently.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**53), st.just(5e-324), st.just(-0.0)
)
Path = tuple[str | int, ...]
ABSENT = object()


def places(document: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every value in a JSON document."""
    if path:
        yield path
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for name, value in items:
        yield from places(value, (*path, name))


def values(before: Any) -> st.SearchStrategy[Any]:
    """Other values of the same type, or none."""
    none = st.sampled_from([None, ABSENT])
    if isinstance(before, bool):
        return st.booleans() | none
    if isinstance(before, int | float):
        return NUMBERS | none
    if isinstance(before, str):
        return TEXTS | none
    if isinstance(before, list):
        return st.lists(st.sampled_from(before), max_size=5) | none if before else none
    return none


@st.composite
def variants(draw: st.DrawFn, document: BaseModel) -> Any:
    """The document without any number of its optional values, and up to three values replaced."""
    text = document.model_dump(mode="json")
    for path in sorted(optional_places(type(document), text), key=len, reverse=True):
        if draw(st.booleans()):
            text = without(text, path, null=draw(st.booleans()))
    for path in draw(st.lists(st.sampled_from(sorted(places(text), key=str)), max_size=3)):
        holder: Any = text
        try:
            for part in path[:-1]:
                holder = holder[part]
            before = holder[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # gone with another
        value = draw(values(before))
        if value is not ABSENT:
            holder[path[-1]] = value
        elif isinstance(holder, dict):
            del holder[path[-1]]
    return text


def as_written(document: Any, text: Any) -> Any:
    """The document of a text that its writer could have written."""
    try:
        written = type(document).model_validate_json(json.dumps(text))
    except ValidationError:
        assume(False)
    assume(not isinstance(written, Job) or written.kind in KINDS)
    return written


def as_hash(fields: Mapping[str, Any]) -> dict[bytes, bytes]:
    """As Redis keeps it."""
    return {name.encode(): str(value).encode() for name, value in fields.items()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
def test_a_document_is_read_back(document: BaseModel) -> None:
    @generated
    @given(variants(document))
    def check(text: Any) -> None:
        written = as_written(document, text)
        assert type(document).model_validate_json(written.model_dump_json()) == written
        if isinstance(written, Job):
            for job in (written, written.brief()):
                assert job_from_fields(job.id, as_hash(job.to_fields())) == job

    check()


@generated
@given(variants(complete_job()))
def test_what_redis_keeps_of_a_job_is_completed_from_the_store(text: Any) -> None:
    whole = as_written(complete_job(), text)
    brief = job_from_fields(whole.id, as_hash(whole.brief().to_fields()))
    stored = VisualizationJob.model_validate_json(whole.model_dump_json())
    assert brief.completed(stored).result == whole.result
    assert brief.completed(None) == brief


@generated
@given(variants(next(each for each in DOCUMENTS if isinstance(each, DeliveryRecord))))
def test_a_delivery_is_read_from_its_hash(text: Any) -> None:
    delivery = as_written(DeliveryRecord.model_validate(DELIVERY), text)
    # An empty text is how Redis has what is absent.
    assume(not any(value == "" for name, value in delivery if name != "claim"))
    fields = {
        name: json.dumps(value) if name == "problem" else value
        for name, value in delivery.model_dump(mode="json").items()
        if value is not None and name not in ("id", "counts")
    }
    read = DeliveryRecord.from_fields(delivery.id, as_hash(fields))
    assert read == delivery.model_copy(update={"counts": None})


DELIVERY = next(each for each in DOCUMENTS if isinstance(each, DeliveryRecord)).model_dump()


@generated
@given(
    units=st.lists(st.integers(0, 9_999), min_size=1, max_size=20, unique=True)
    | st.builds(
        lambda start, length, step: {"start": start, "stop": start + length, "step": step},
        st.integers(0, 100),
        st.integers(1, 100),
        st.integers(1, 7),
    ),
    deadline_at=st.none() | st.floats(1, 1e10),
    limits=st.builds(Limits, st.integers(1, 10**6), st.integers(1, 10**6), st.none() | st.integers(1, 10**6)),
    counts=st.lists(st.integers(0, 1000), min_size=5, max_size=5),
    problem=st.none() | st.builds(Problem, code=TEXTS, detail=TEXTS),
    caller=TEXTS,
)
def test_a_batch_is_read_from_its_hash(
    units: Any,
    deadline_at: float | None,
    limits: Limits,
    counts: list[int],
    problem: Problem | None,
    caller: str,
) -> None:
    request = BatchRequest(model="tiny", layer="conv", units=units, steps=4)
    batch = ResolvedBatch.of(request, MODEL)
    fields: dict[str, Any] = {
        **batch.to_fields(),
        **dict(zip(COUNTED, counts, strict=True)),
        "caller": caller,
        "state": "running",
        "priority": "batch",
        "created_at": 1.5,
        "limits": limits_json(limits),
        "window": 256,
    }
    if deadline_at is not None:
        fields["deadline_at"] = repr(deadline_at)
    if problem is not None:
        fields["problem"] = problem.model_dump_json()
    read = BatchRecord.from_fields("0" * 32, as_hash(fields))
    assert (list(read.units), read.deadline_at, read.limits) == (list(batch.units), deadline_at, limits)
    assert (list(read.counts.values()), read.problem, read.caller) == (counts, problem, caller)
    spec = read.request_of(read.units[0], 0.0).spec
    assert spec.identity(MODEL) == batch.first.identity(MODEL)
