"""Plays the worker for attributions: results and files as one would deliver them; needs no torch."""

from __future__ import annotations

import hashlib
import io
import json

from PIL import Image
from redis import Redis

from proxygrad.pictures import npy_file
from proxygrad.protocol.jobs import ArtifactInfo
from proxygrad.spec.attribution import (
    AttributionResult,
    AttributionSpec,
    LogitValue,
    MissedShare,
    SummationDelta,
)
from proxygrad.spec.results import ClassProbability
from workers.broker.keys import job_key
from workers.broker.rq_names import entry_key
from workers.jobs.kinds.attribution import CONTRIBUTIONS, HEATMAP, OVERLAY, AttributionJob
from workers.jobs.repository import Jobs
from workers.storage.paths import artifact_path, result_path
from workers.storage.store import Store


def outcome(spec: AttributionSpec) -> AttributionResult:
    """A result with every optional value."""
    missed = MissedShare(operation="aten.mul.Tensor", layer="fc", missed=0.25, share=0.125)
    return AttributionResult(
        spec=spec,
        value=3.0,
        reference_value=1.0,
        delta=SummationDelta(absolute=0.25, relative=0.125, operations=(missed,)),
        unruled=(missed,),
        shape=(spec.image.channels, spec.image.height_px, spec.image.width_px),
        scale=0.5,
        logits=(LogitValue(index=3, name="3", value=3.0),),
        class_probabilities=(ClassProbability(index=3, name="3", probability=0.5),),
        notes=("leaky",),
        digest="d" * 64,
        engine_version="1",
        device="cpu",
        dtype="float32",
        ran_s=2.5,
    )


def files_of(result: AttributionResult) -> dict[str, bytes]:
    """White pictures, and contributions that are all zero."""
    channels, rows, columns = result.shape
    buffer = io.BytesIO()
    Image.new("RGB", (columns, rows), "white").save(buffer, "PNG")
    zeros = npy_file(result.shape, bytes(4 * channels * rows * columns), "<f4")
    return {HEATMAP: buffer.getvalue(), OVERLAY: buffer.getvalue(), CONTRIBUTIONS: zeros}


def described(files: dict[str, bytes]) -> dict[str, ArtifactInfo]:
    """The files as a record lists them."""
    return {
        name: ArtifactInfo(
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            media_type="image/png" if name.endswith(".png") else "application/x-npy",
        )
        for name, data in files.items()
    }


def succeed(redis: Redis, store: Store, job_id: str) -> dict[str, bytes]:
    """The job ran for two and a half seconds; its files."""
    job = Jobs(redis, store).fetch(job_id)
    assert isinstance(job, AttributionJob)
    result = outcome(job.spec)
    files = files_of(result)
    ended = {"state": "succeeded", "started_at": job.created_at + 1.5, "finished_at": job.created_at + 4.0}
    done = job.model_copy(
        update={**ended, "step": 1, "activation": result.value, "result": result, "files": described(files)}
    )
    for name, data in files.items():
        store.put(artifact_path(job_id, name), data)
    store.put(result_path(job_id), done.model_dump_json().encode())
    record = json.loads(done.model_dump_json())
    redis.hset(entry_key(job_id), "status", "finished")
    fields: dict[str | bytes, str] = {name: json.dumps(record[name]) for name in ("result", "files")}
    for name in ("state", "started_at", "finished_at", "step", "activation"):
        fields[name] = str(record[name])
    redis.hset(job_key(job_id), items=[part for pair in fields.items() for part in pair])
    return files


def fail(redis: Redis, job_id: str) -> None:
    """The job failed."""
    problem = json.dumps({"code": "input_gone", "detail": "the picture is gone"})
    redis.hset(entry_key(job_id), "status", "failed")
    redis.hset(job_key(job_id), mapping={"state": "failed", "problem": problem})
