"""Visualizations in the interface: their documents, and the limits of what may be requested."""

from __future__ import annotations

import math
from collections.abc import Mapping

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.base import utc_time
from proxygrad.protocol.jobs import Progress
from proxygrad.protocol.problems import FieldError, Problem
from proxygrad.protocol.requests import VisualizationRequest
from proxygrad.protocol.visualizations import (
    MAX_CURVE_VALUES,
    Image,
    ImageLinks,
    Visualization,
    VisualizationLinks,
    VisualizationSummary,
)
from proxygrad.spec import ModelInfo, Result, Spec
from service.backend.admission import check_limit
from service.backend.resources.base import JobResource
from service.problems import ProblemError
from service.settings import ServiceSettings
from service.web.links import link
from workers.jobs.kinds.visualization import VISUALIZATION, VisualizationJob


def document(
    job: VisualizationJob, queue_position: int | None, blocked: Problem | None, now_s: float
) -> Visualization:
    """The document of ``job`` at the time ``now_s``, in seconds since 1970."""
    path = link(f"{VISUALIZATIONS}/{job.id}")
    images, eta_s = _images(job, path), job.eta_s(now_s)
    until_s = job.finished_at or now_s
    result, curve_stride = _thinned(job.result)
    return Visualization(
        id=job.id,
        state=job.state,
        progress=_progress(job),
        queue_position=queue_position if job.state == "queued" else None,
        eta_s=None if eta_s is None else round(eta_s, 3),
        spec=job.spec,
        result=result,
        curve_stride=curve_stride,
        images=images,
        problem=job.problem,
        priority=None if job.ended else job.priority,
        blocked=blocked,
        deadline_at=None if job.ended else utc_time(job.deadline_at),
        created_at=utc_time(job.created_at),
        started_at=utc_time(job.started_at),
        finished_at=utc_time(job.finished_at),
        waited_s=max(0.0, (job.started_at or until_s) - job.created_at),
        ran_s=None if job.started_at is None else max(0.0, until_s - job.started_at),
        links=_links(path, images[job.best].links.self if images else None, several=len(images) > 1),
    )


def _thinned(result: Result | None) -> tuple[Result | None, int]:
    """The result with every so many values of its curves, the last one always; and how many."""
    if result is None:
        return None, 1
    stride = math.ceil(len(result.curve) * (1 + len(result.images)) / MAX_CURVE_VALUES)
    if stride <= 1:
        return result, 1
    images = tuple(image.model_copy(update={"curve": _every(stride, image.curve)}) for image in result.images)
    return result.model_copy(update={"curve": _every(stride, result.curve), "images": images}), stride


def _every(stride: int, curve: tuple[float, ...]) -> tuple[float, ...]:
    last = len(curve) - 1
    return (*curve[:last:stride], *curve[last:])


def summary(job: VisualizationJob) -> VisualizationSummary:
    """The document of ``job`` in a list."""
    path = link(f"{VISUALIZATIONS}/{job.id}")
    image = f"{path}/images/{job.best}" if job.state == "succeeded" else None
    return VisualizationSummary(
        id=job.id,
        state=job.state,
        progress=_progress(job),
        spec=job.spec,
        problem=job.problem,
        priority=None if job.ended else job.priority,
        created_at=utc_time(job.created_at),
        started_at=utc_time(job.started_at),
        finished_at=utc_time(job.finished_at),
        links=_links(path, image, several=image is not None and job.spec.pictures > 1),
    )


def _links(path: str, image: str | None, *, several: bool) -> VisualizationLinks:
    return VisualizationLinks(
        self=path,
        image=image,
        grid=f"{path}/grid" if several else None,
        animation=f"{path}/animation" if several else None,
        events=f"{path}/events",
        cancel=f"{path}/cancel",
        retry=f"{path}/retry",
    )


def _progress(job: VisualizationJob) -> Progress:
    return Progress(step=job.step, steps=job.steps, activation=job.activation)


def _images(job: VisualizationJob, path: str) -> list[Image]:
    """The images of ``job``, which is at ``path``."""
    if job.result is None:
        return []
    measured = [job.result.image(number) for number in range(len(job.images))]
    return [
        Image(
            **image.model_dump(),
            role=own.role,
            seed=own.seed,
            achieved_activation=own.achieved_activation,
            links=ImageLinks(self=f"{path}/images/{number}"),
        )
        for number, (image, own) in enumerate(zip(job.images, measured, strict=True))
    ]


def maxima(settings: ServiceSettings) -> Mapping[str, float]:
    """The operator's limits of single fields."""
    return {"steps": settings.max_steps, "size_px": settings.max_size_px}


def check_limits(spec: Spec, model: ModelInfo, settings: ServiceSettings) -> None:
    """Check the resolved ``spec`` against the limits; raises `limit_exceeded` or `cost_too_high`."""
    size_px = spec.size_px or max(model.input_shape[1:])
    check_limit("steps", spec.steps, settings.max_steps, "PROXYGRAD_MAX_STEPS")
    check_limit("size_px", size_px, settings.max_size_px, "PROXYGRAD_MAX_SIZE_PX")
    cost = spec.cost(model)
    if cost > settings.max_cost:
        counted = f" × {spec.lanes} images" if spec.lanes > 1 else ""
        formula, fewer = f"steps × height × width{counted}", "steps"
        if spec.starts > 1:
            formula = f"{spec.lane_steps} steps of all starts × height × width"
            fewer = "steps, starts"
        detail = (
            f"the request costs {cost:.6g} megapixel steps ({formula} / 10⁶), and this server's limit is "
            f"{settings.max_cost:g} (its operator's PROXYGRAD_MAX_COST); use fewer {fewer}, "
            f"pixels{' or images, or no comparison' if spec.compare else ' or images' if counted else ''}"
        )
        field_error = FieldError(
            location=["body"], detail="costs too much", value=round(cost, 6), maximum=settings.max_cost
        )
        raise ProblemError("cost_too_high", detail, [field_error])


RESOURCE = JobResource(
    kind=VISUALIZATION,
    request=VisualizationRequest,
    document=document,
    check_limits=check_limits,
    unknown="unknown_visualization",
    ended="visualization_ended",
    maxima=maxima,
)
