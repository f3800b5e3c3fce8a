"""Attributions in the interface: their documents, their limits, and the picture that a request brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from anyio import to_thread
from pydantic import BaseModel

from proxygrad.errors import InvalidRequest
from proxygrad.protocol.addresses import ATTRIBUTIONS
from proxygrad.protocol.attributions import (
    Attribution,
    AttributionLinks,
    AttributionRequest,
    AttributionSummary,
    VisualizationImage,
)
from proxygrad.protocol.base import utc_time
from proxygrad.protocol.jobs import Progress
from proxygrad.protocol.problems import FieldError, Problem
from proxygrad.spec import ModelInfo
from proxygrad.spec.attribution import MAX_REFERENCES, AttributionSpec
from service.backend.admission import check_limit
from service.backend.backend import Backend
from service.backend.resources import visualizations
from service.backend.resources.base import JobResource
from service.backend.resources.session import JobSession
from service.problems import ProblemError
from service.settings import ServiceSettings
from service.web.exception_handlers import problem_of_error
from service.web.links import link
from workers.jobs.inputs import INPUT, REFERENCES, put_input
from workers.jobs.job import Job
from workers.jobs.kinds.attribution import ATTRIBUTION, AttributionJob
from workers.jobs.kinds.visualization import VisualizationJob, image_name
from workers.storage.pins import ArtifactPins


def document(
    job: AttributionJob, queue_position: int | None, blocked: Problem | None, now_s: float
) -> BaseModel:
    """The document of ``job`` at the time ``now_s``, in seconds since 1970."""
    eta_s, until_s = job.eta_s(now_s), job.finished_at or now_s
    return Attribution(
        **_summarized(job),
        queue_position=queue_position if job.state == "queued" else None,
        eta_s=None if eta_s is None else round(eta_s, 3),
        result=job.result,
        blocked=blocked,
        deadline_at=None if job.ended else utc_time(job.deadline_at),
        waited_s=max(0.0, (job.started_at or until_s) - job.created_at),
        ran_s=None if job.started_at is None else max(0.0, until_s - job.started_at),
    )


def summary(job: AttributionJob) -> AttributionSummary:
    """The document of ``job`` in a list."""
    return AttributionSummary(**_summarized(job))


def _summarized(job: AttributionJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state,
        "progress": Progress(step=job.step, steps=job.steps, activation=job.activation),
        "spec": job.spec,
        "problem": job.problem,
        "priority": None if job.ended else job.priority,
        "created_at": utc_time(job.created_at),
        "started_at": utc_time(job.started_at),
        "finished_at": utc_time(job.finished_at),
        "links": _links(job),
    }


def _links(job: AttributionJob) -> AttributionLinks:
    path = link(f"{ATTRIBUTIONS}/{job.id}")
    done = job.state == "succeeded"
    return AttributionLinks(
        self=path,
        heatmap=f"{path}/images/heatmap" if done else None,
        overlay=f"{path}/images/overlay" if done else None,
        contributions=f"{path}/contributions" if done else None,
        events=f"{path}/events",
        cancel=f"{path}/cancel",
        retry=f"{path}/retry",
    )


def check_limits(spec: AttributionSpec, model: ModelInfo, settings: ServiceSettings) -> None:
    """Check the resolved ``spec`` against the limits; raises `limit_exceeded` or `cost_too_high`."""
    longer_px = max(spec.image.height_px, spec.image.width_px)
    if spec.size_px is not None or longer_px > max(model.input_shape[1:]):
        check_limit("size_px", longer_px, settings.max_size_px, "PROXYGRAD_MAX_SIZE_PX")
    cost = spec.cost(model)
    if cost > settings.max_cost:
        detail = (
            f"the request costs {cost:.6g} megapixel steps, and this server's limit is "
            f"{settings.max_cost:g} (its operator's PROXYGRAD_MAX_COST); use fewer references, points or "
            "pixels"
        )
        field_error = FieldError(
            location=["body"], detail="costs too much", value=round(cost, 6), maximum=settings.max_cost
        )
        raise ProblemError("cost_too_high", detail, [field_error])


RESOURCE = JobResource(
    kind=ATTRIBUTION,
    request=AttributionRequest,
    document=document,
    check_limits=check_limits,
    unknown="unknown_attribution",
    ended="attribution_ended",
)


@dataclass(frozen=True)
class Uploads:
    """The pictures that a request brings; ``image`` None: it is one of a visualization."""

    image: bytes | None
    references: tuple[bytes, ...] = ()


async def submit(
    session: JobSession, request: AttributionRequest, uploads: Uploads, idempotency_key: str | None
) -> Job:
    """The job for a request, new or joined, with its pictures in the store. Raises `ProblemError`."""
    backend = session.backend
    try:
        model = await backend.models.info(request.model)
        request.checked(model)  # before anything is decoded
    except InvalidRequest as error:
        raise problem_of_error(error, "body", request.model_dump(mode="json")) from error
    if request.size_px is not None:
        check_limit("size_px", request.size_px, backend.settings.max_size_px, "PROXYGRAD_MAX_SIZE_PX")
    own = None if request.size_px is None else (request.size_px, request.size_px)
    channels, height_px, width_px = model.input_shape
    if uploads.image is None:
        assert request.image is not None
        data = await _image(session, request.image)
        picture = await backend.pictures(data, channels, own)
    else:
        size = own or (height_px, width_px)
        picture = await backend.pictures(uploads.image, channels, size, exact=own is not None)
    npy, image = await to_thread.run_sync(lambda: (picture.npy, picture.image))
    inputs, references = {INPUT: (npy, image.sha256)}, None
    if uploads.references:
        npy, references = await backend.pictures.references(uploads.references, picture, MAX_REFERENCES)
        inputs[REFERENCES] = npy, references.sha256
    job = await session.submit(request.of(image, references), idempotency_key)
    if not job.ended:
        await to_thread.run_sync(_keep, backend, job.id, inputs)
    return job


def _keep(backend: Backend, job_id: str, inputs: Mapping[str, tuple[bytes, str]]) -> None:
    pins = ArtifactPins(backend.redis)
    for name, (data, sha256) in inputs.items():
        put_input(backend.store, pins, job_id, data, sha256, name)


async def _image(session: JobSession, image: VisualizationImage) -> bytes:
    """The image of a visualization that the caller may see."""
    backend, caller, resource = session.backend, session.caller, visualizations.RESOURCE
    theirs = JobSession(backend, caller, resource)
    if not caller.operates:
        theirs = await JobSession.about_job(backend, caller, resource, image.visualization)
    png = await theirs.artifact(image.visualization, image_name(image.number))
    if png is not None:
        return png
    job = cast(VisualizationJob, await theirs.job(image.visualization))
    if not job.ended:
        raise ProblemError("image_not_ready", f"visualization {job.id} is {job.state}")
    raise ProblemError("no_image", f"visualization {job.id} {job.state} and has no image {image.number}")
