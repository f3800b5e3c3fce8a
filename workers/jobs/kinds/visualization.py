"""The kind `visualization`: an image, or several, that show what a unit responds to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.jobs import ArtifactInfo
from proxygrad.protocol.visualizations import ImageInfo
from proxygrad.spec import Result, StoredSpec
from workers.jobs.job import Job
from workers.jobs.kinds.base import JobKind
from workers.storage.paths import artifact_path

NAME = "visualization"


def image_name(number: int) -> str:
    """The name of an image among the artifacts; images count from 0."""
    return f"{number}.png"


def image_path(job_id: str, number: int) -> str:
    """The path of an image in the store."""
    return artifact_path(job_id, image_name(number))


def _by_name(images: tuple[ImageInfo, ...]) -> Mapping[str, ArtifactInfo]:
    return {image_name(number): image for number, image in enumerate(images)}


class VisualizationJob(Job):
    """A visualization. ``best`` is the number of the image that counts, as `Result.best`."""

    json_fields: ClassVar[frozenset[str]] = Job.json_fields | {"images"}
    result_fields: ClassVar[tuple[str, ...]] = ("result", "images")
    listed_fields: ClassVar[tuple[str, ...]] = (*Job.listed_fields, "best")

    kind: str = NAME
    spec: StoredSpec
    result: Result | None = None
    images: tuple[ImageInfo, ...] = ()
    best: int = 0

    @property
    def artifacts(self) -> Mapping[str, ArtifactInfo]:
        """The images."""
        return _by_name(self.images)

    @property
    def is_whole(self) -> bool:
        """Whether it has the curves of its images: of up to 2,049 numbers each, most of a record."""
        return self.result is None or bool(self.result.curve)

    def brief(self) -> Self:
        """The job without the curves."""
        return self if self.result is None else self.model_copy(update={"result": _brief(self.result)})

    def completed(self, stored: Job | None) -> Self:
        """The job with the curves that the stored record of the same images has."""
        same = isinstance(stored, VisualizationJob) and stored.images == self.images
        return self.model_copy(update={"result": stored.result}) if same else self  # type: ignore[union-attr]

    @property
    def about(self) -> str:
        """Layer, unit and model."""
        return f"{self.spec.layer} unit {self.spec.unit} of {self.spec.model}"

    @property
    def achieved(self) -> float | None:
        """The activation of the best image."""
        return super().achieved if self.result is None else self.result.achieved_activation

    @property
    def unit_detail(self) -> str:
        """The activation and, where the best image is not the first, its number."""
        return super().unit_detail + (f" {self.best}" if self.best else "")


def _brief(result: Result) -> Result:
    images = tuple(image.model_copy(update={"curve": ()}) for image in result.images)
    return result.model_copy(update={"curve": (), "images": images})


class _Images(BaseModel):
    """The images of a stored record: read in a third of the time of the whole record."""

    id: str
    kind: str = NAME
    images: tuple[ImageInfo, ...] = ()

    @property
    def artifacts(self) -> Mapping[str, ArtifactInfo]:
        return _by_name(self.images)


class _VisualizationKind(JobKind):
    def capability(self, model: str) -> str:
        """The name of the model alone."""
        return model

    def event_data(self, state: str, activation: float | None) -> Mapping[str, Any]:
        """The achieved activation; None unless it succeeded."""
        return {"achieved_activation": activation if state == "succeeded" else None}


VISUALIZATION = _VisualizationKind(NAME, VISUALIZATIONS, VisualizationJob, _Images)
