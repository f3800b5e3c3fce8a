"""What the gateway answers with, as documents: shared by the routes and the client.

Timestamps are UTC; they travel as RFC 3339. Durations are in seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, Field

from proxygrad.spec import OBJECTIVES, LayerInfo, ObjectiveKind, Result, Role, Spec
from workers.fleet.catalog import ServedModel
from workers.jobs.repository import ImageInfo, Job, Priority, Problem, State


class Progress(BaseModel):
    """How far the ascent has come."""

    step: int = Field(description="Gradient steps done.")
    steps: int = Field(description="Gradient steps in all.")
    activation: float | None = Field(
        description="The unit's activation when last seen during the ascent; `null` before the first step. "
        "The one that counts is `result.achieved_activation`."
    )


class ImageAnswer(ImageInfo):
    """One delivered picture. Of several, `result.images` has what else is measured, by the same number."""

    href: str = Field(description="Where its bytes are, relative to this server.")
    role: Role = Field(
        description="`proxygrad`: made as was asked; `baseline`: by plain activation maximization, beside it."
    )
    seed: int = Field(description="Its seed: that of the question, and one more for each further image.")
    achieved_activation: float = Field(description="The unit's activation on it, in the unit's own scale.")

    @classmethod
    def all_of(cls, job: Job, path: str) -> list[ImageAnswer]:
        """The pictures of `job`, which is found at `path`."""
        if job.result is None:
            return []
        told = [job.result.image(number) for number in range(len(job.images))]
        return [
            cls(
                **image.model_dump(),
                href=f"{path}/images/{number}",
                role=own.role,
                seed=own.seed,
                achieved_activation=own.achieved_activation,
            )
            for number, (image, own) in enumerate(zip(job.images, told, strict=True))
        ]


class VisualizationLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This visualization.")
    image: str | None = Field(description="The best picture, once there is one.")


class Visualization(BaseModel):
    """One question, where its answer stands, and the answer."""

    id: str = Field(description="32 hex digits; the same question about the same weights has the same id.")
    state: State = Field(description="`queued` → `running` → `succeeded`, `failed` or `canceled`.")
    progress: Progress = Field(description="How far it has come.")
    queue_position: int | None = Field(description="Jobs ahead of this one; `null` unless queued.")
    eta_s: float | None = Field(
        description="Seconds until it should end: of one that runs by the pace of its steps, of one that "
        "waits by the latest runs of its model and of all. `null` where there were none, and once ended."
    )
    spec: Spec = Field(description="The question with every default that depends on the model filled in.")
    result: Result | None = Field(description="What came out; `null` unless succeeded.")
    images: list[ImageAnswer] = Field(
        description="The delivered pictures, by number: those asked for, then the plain ones "
        "to compare with. Empty unless succeeded."
    )
    problem: Problem | None = Field(description="Why there is no result; `null` unless failed or canceled.")
    priority: Priority | None = Field(description="Its turn among those that wait; `null` once ended.")
    blocked: Problem | None = Field(
        description="Why no live worker can take it now; `null` when one can, and unless queued."
    )
    deadline_at: datetime | None = Field(
        description="When it fails if it has not ended (UTC); `null` without a deadline, and once ended."
    )
    created_at: datetime = Field(description="When it was asked for (UTC).")
    started_at: datetime | None = Field(description="When a worker began (UTC).")
    finished_at: datetime | None = Field(description="When it ended (UTC).")
    waited_s: float = Field(description="Seconds from asked for to begun, or until now.")
    ran_s: float | None = Field(
        description="Seconds from begun to ended, or until now; `null` before it began."
    )
    links: VisualizationLinks = Field(description="Where to go on.")

    @property
    def ended(self) -> bool:
        """True when the state will not change by itself any more."""
        return self.state not in ("queued", "running")


class Summary(BaseModel):
    """One visualization in a list: all but its result."""

    id: str = Field(description="32 hex digits.")
    state: State = Field(description="`queued`, `running`, `succeeded`, `failed` or `canceled`.")
    progress: Progress = Field(description="How far it came; once succeeded, what the picture achieves.")
    spec: Spec = Field(description="The question with every default that depends on the model filled in.")
    problem: Problem | None = Field(description="Why there is no result; `null` unless failed or canceled.")
    priority: Priority | None = Field(description="Its turn among those that wait; `null` once ended.")
    created_at: datetime = Field(description="When it was asked for, the last time anew (UTC).")
    started_at: datetime | None = Field(description="When a worker began (UTC).")
    finished_at: datetime | None = Field(description="When it ended (UTC).")
    links: VisualizationLinks = Field(description="Where to go on.")

    @classmethod
    def of(cls, job: Job, base: str) -> Summary:
        """The document of `job`; `base` is the path of all visualizations."""
        path = f"{base}/{job.id}"
        image = f"{path}/images/{job.best}" if job.state == "succeeded" else None
        return cls(
            id=job.id,
            state=job.state,
            progress=Progress(step=job.step, steps=job.steps, activation=job.activation),
            spec=job.spec,
            problem=job.problem,
            priority=None if job.ended else job.priority,
            created_at=_utc(job.created_at),
            started_at=None if job.started_at is None else _utc(job.started_at),
            finished_at=None if job.finished_at is None else _utc(job.finished_at),
            links=VisualizationLinks(self=path, image=image),
        )


def visualization(
    job: Job, queue_position: int | None, blocked: Problem | None, base: str, now_s: float
) -> Visualization:
    """The document of `job` at the time `now_s`; `base` is the path of all visualizations."""
    path = f"{base}/{job.id}"
    images, eta_s = ImageAnswer.all_of(job, path), job.eta_s(now_s)
    until_s = job.finished_at or now_s
    return Visualization(
        id=job.id,
        state=job.state,
        progress=Progress(step=job.step, steps=job.steps, activation=job.activation),
        queue_position=queue_position if job.state == "queued" else None,
        eta_s=None if eta_s is None else round(eta_s, 3),
        spec=job.spec,
        result=job.result,
        images=images,
        problem=job.problem,
        priority=None if job.ended else job.priority,
        blocked=blocked,
        deadline_at=None if job.ended or job.deadline_at is None else _utc(job.deadline_at),
        created_at=_utc(job.created_at),
        started_at=None if job.started_at is None else _utc(job.started_at),
        finished_at=None if job.finished_at is None else _utc(job.finished_at),
        waited_s=max(0.0, (job.started_at or until_s) - job.created_at),
        ran_s=None if job.started_at is None else max(0.0, until_s - job.started_at),
        links=VisualizationLinks(self=path, image=images[job.best].href if images else None),
    )


def _utc(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, tz=UTC)


class LayerAnswer(LayerInfo):
    """One layer, with what can be asked of it."""

    objectives: tuple[ObjectiveKind, ...] = Field(description="Valid objectives; the first is the default.")

    @classmethod
    def of(cls, layer: LayerInfo) -> LayerAnswer:
        """The document of `layer`."""
        return cls(**layer.model_dump(), objectives=OBJECTIVES[layer.kind])


class LayersAnswer(BaseModel):
    """The layers of one model, in the order of its forward pass."""

    model: str = Field(description="The model's name.")
    layers: list[LayerAnswer] = Field(description="Every layer that can be asked about.")


class ModelLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This model.")
    layers: str = Field(description="Its layers.")


class ModelAnswer(BaseModel):
    """One model that live workers know, ready or not."""

    name: str = Field(description="What questions call it.")
    ready: bool = Field(description="Whether questions about it are answered.")
    problem: Problem | None = Field(description="Why it could not be loaded; `null` when ready.")
    input_shape: tuple[int, int, int] | None = Field(description="(channels, height, width) it was made for.")
    classes: tuple[str, ...] | None = Field(description="Names of its logits, where known.")
    digest: str | None = Field(description="SHA-256 over weights, builder and normalization.")
    engine_version: str | None = Field(description="Version of the method that answers.")
    layer_count: int = Field(description="How many layers it has; 0 unless ready.")
    links: ModelLinks = Field(description="Where to go on.")

    @classmethod
    def of(cls, served: ServedModel, path: str) -> ModelAnswer:
        """The document of `served`, which is found at `path`."""
        info = served.info
        return cls(
            name=served.name,
            ready=info is not None,
            problem=served.problem,
            input_shape=info.input_shape if info else None,
            classes=info.classes if info else None,
            digest=info.digest if info else None,
            engine_version=info.engine_version if info else None,
            layer_count=len(info.layers) if info else 0,
            links=ModelLinks(self=path, layers=f"{path}/layers"),
        )


class ModelsAnswer(BaseModel):
    """Every model that live workers know."""

    models: list[ModelAnswer] = Field(description="By name; those that could not be loaded too.")
