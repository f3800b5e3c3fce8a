"""A stored document is read back by its own reader, whichever optional values are absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.visualizations import ImageInfo
from proxygrad.spec import ClassProbability, ModelInfo, Result, RobustActivation, Spec
from proxygrad.spec.attribution import AttributionResult, AttributionSpec, InputImage
from service.auth.keys import Key
from tests.support import attribution_player
from tests.support.model_on_paper import MODEL, outcome, question
from workers.fleet.catalog import ServedModel
from workers.jobs.kinds.attribution import AttributionJob
from workers.jobs.kinds.registry import job_from_fields
from workers.jobs.kinds.visualization import VisualizationJob
from workers.jobs.repository import CheckpointReference, Job
from workers.webhooks import DeliveryRecord

PROBLEM = Problem(code="out_of_memory", detail="no room")
SPEC = (
    question()
    .model_copy(update={"images": 2, "compare": True, "objective": "neuron", "position": (1, 1)})
    .resolve(MODEL)
)


def complete_result() -> Result:
    """A result with every optional field present, of each of its images too."""
    measured = {
        "robust_activation": RobustActivation(mean=1.0, std=0.5),
        "rank": 1,
        "rank_of": 10,
        "class_probabilities": (ClassProbability(index=3, name="three", probability=0.5),),
    }
    whole = outcome(SPEC)
    return whole.of(tuple(image.model_copy(update=measured) for image in whole.images))


def complete_job() -> VisualizationJob:
    return VisualizationJob(
        id="0" * 32,
        spec=SPEC,
        state="succeeded",
        created_at=1.0,
        started_at=2.0,
        finished_at=3.0,
        step=4,
        steps=4,
        activation=5.0,
        worker="worker-1",
        result=complete_result(),
        images=(ImageInfo(sha256="0" * 64, size_bytes=1, media_type="image/png", width_px=8, height_px=8),),
        problem=PROBLEM,
        deadline_at=9.0,
        checkpoint=CheckpointReference(step=2, path="0/checkpoint"),
        cancel_requested=2.5,
        expected_at=3.5,
    )


ATTRIBUTION = AttributionSpec(
    model="tiny",
    layer="conv",
    unit=7,
    objective="neuron",
    position=(1, 1),
    size_px=8,
    at="conv",
    rule="rescale",
    reference=0.5,
    image=InputImage(sha256="0" * 64, channels=1, height_px=8, width_px=8),
)


def complete_attribution() -> AttributionJob:
    result = attribution_player.outcome(ATTRIBUTION)
    return AttributionJob(
        id="0" * 32,
        spec=ATTRIBUTION,
        state="succeeded",
        created_at=1.0,
        started_at=2.0,
        finished_at=3.0,
        step=1,
        steps=1,
        activation=5.0,
        worker="worker-1",
        result=result,
        files=attribution_player.described(attribution_player.files_of(result)),
        problem=PROBLEM,
        deadline_at=9.0,
        cancel_requested=2.5,
        expected_at=3.5,
    )


DOCUMENTS: list[BaseModel] = [
    SPEC,
    complete_result(),
    complete_job(),
    ATTRIBUTION,
    attribution_player.outcome(ATTRIBUTION),
    complete_attribution(),
    MODEL.model_copy(
        update={
            "classes": ("one",),
            "layers": (
                MODEL.layers[0].model_copy(update={"activation": "relu", "stage": "post_activation"}),
            ),
        }
    ),
    ServedModel(name="tiny", info=MODEL),
    ServedModel(name="tiny", problem=PROBLEM),
    DeliveryRecord(
        id="d1",
        kind="visualization",
        subject="0" * 32,
        caller="anyone",
        url="http://127.0.0.1/",
        receiver="http://127.0.0.1",
        ended="succeeded",
        created_at=1.0,
        state="pending",
        attempts=1,
        tried=1,
        tried_at=2.0,
        next_at=3.0,
        status=500,
        error="x",
        activation=1.0,
        problem=PROBLEM,
    ),
    Key.made("key", ["read"], 1.0, expires_days=1)[0],
]


def optional_places(
    model: type[BaseModel], value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[str | int, ...]]:
    """The paths in a document of `model` whose values may be None, and those within what is there."""
    for name, field in model.model_fields.items():
        inner = value.get(name) if isinstance(value, dict) else None
        if name not in value:
            continue
        if may_be_none(field.annotation):
            yield (*path, name)
        for nested, item, at in nested_models(field.annotation, inner):
            yield from optional_places(nested, item, (*path, name, *at))


def may_be_none(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation)


def nested_models(annotation: Any, value: Any) -> Iterator[tuple[type[BaseModel], Any, tuple[int, ...]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if isinstance(value, dict):
            yield annotation, value, ()
        return
    for inner in get_args(annotation):
        if isinstance(value, list):
            for number, item in enumerate(value):
                for model, found, at in nested_models(inner, item):
                    yield model, found, (number, *at)
        else:
            yield from nested_models(inner, value)


def without(document: Any, path: tuple[str | int, ...], *, null: bool) -> Any:
    """A copy with the value at `path` null or gone."""
    document = json.loads(json.dumps(document))
    holder = document
    for part in path[:-1]:
        holder = holder[part]
    if null:
        holder[path[-1]] = None
    else:
        del holder[path[-1]]
    return document


CASES = [
    pytest.param(document, path, id=f"{type(document).__name__}.{'.'.join(map(str, path))}")
    for document in DOCUMENTS
    for path in optional_places(type(document), document.model_dump(mode="json"))
    if not (isinstance(document, ServedModel) and path in (("info",), ("problem",)))  # needs one of the two
]


def test_the_documents_have_optional_places() -> None:
    names = {str(case.id) for case in CASES}
    in_jobs = ("class_probabilities", "images.1.class_probabilities.0.name")
    assert {f"VisualizationJob.result.{name}" for name in in_jobs} <= names
    in_attributions = ("result.delta.relative", "result.logits.0.name", "spec.at", "spec.size_px")
    assert {f"AttributionJob.{name}" for name in in_attributions} <= names
    assert {"ModelInfo.classes", "ModelInfo.layers.0.stage", "Key.rate_per_min", "Result.baseline"} <= names


@pytest.mark.parametrize(("document", "path"), CASES)
def test_a_document_without_an_optional_value_is_read_back(
    document: BaseModel, path: tuple[str | int, ...]
) -> None:
    model = type(document)
    text = document.model_dump(mode="json")
    left_open = model.model_validate_json(json.dumps(without(text, path, null=True)))
    assert model.model_validate_json(left_open.model_dump_json()) == left_open
    model.model_validate_json(json.dumps(without(text, path, null=False)))  # as an older version may have it
    if isinstance(left_open, Job):
        fields = {name.encode(): str(value).encode() for name, value in left_open.to_fields().items()}
        assert job_from_fields(left_open.id, fields) == left_open


def test_a_record_written_without_the_name_of_a_class_is_read() -> None:
    job = complete_job()
    fields = {name.encode(): str(value).encode() for name, value in job.to_fields().items()}
    fields[b"result"] = fields[b"result"].replace(b'"name": "three", ', b"")
    result = job_from_fields(job.id, fields).result
    assert result is not None
    assert result.class_probabilities == (ClassProbability(index=3, name=None, probability=0.5),)


def test_an_attribution_of_a_newer_version_is_read() -> None:
    job = complete_attribution()
    fields = {name.encode(): str(value).encode() for name, value in job.to_fields().items()}
    read = job_from_fields(job.id, fields)
    assert (read.spec, read.result, read.artifacts) == (job.spec, job.result, job.files)
    for name in (b"spec", b"result", b"files"):
        fields[name] = fields[name].replace(b'"unit": 7', b'"unit": 7, "later": {"a": 1}')
        fields[name] = fields[name].replace(b'"unit":7', b'"unit":7,"later":{"a":1}')
        fields[name] = fields[name].replace(b'"scale":', b'"later": null, "scale":')
        fields[name] = fields[name].replace(b'"size_bytes":', b'"later": 1, "size_bytes":')
    assert b"later" in fields[b"spec"]
    assert fields[b"result"].count(b"later") == 2
    assert fields[b"files"].count(b"later") == 3
    assert job_from_fields(job.id, fields) == read


def test_what_is_checked_here_is_all_that_is_stored() -> None:
    stored: set[type[BaseModel]] = {
        Spec,
        Result,
        VisualizationJob,
        ModelInfo,
        ServedModel,
        DeliveryRecord,
        Key,
    }
    stored |= {AttributionSpec, AttributionResult, AttributionJob}
    assert {type(each) for each in DOCUMENTS} == stored
