"""Requests and documents about attributions: which pixels of an image made a unit respond."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from proxygrad.protocol.base import ID_PATTERN, UtcTime
from proxygrad.protocol.jobs import Progress, State
from proxygrad.protocol.pagination import MAX_SCANNED, PageLinks
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import JobOptions, Priority
from proxygrad.spec.attribution import (
    AttributionResult,
    AttributionSpec,
    AttributionTemplate,
    InputImage,
    ReferenceImages,
)
from proxygrad.spec.visualization import MAX_IMAGES

#: The pictures of an attribution.
AttributionImage = Literal["heatmap", "overlay"]


class VisualizationImage(BaseModel):
    """An image of a visualization that has succeeded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    visualization: str = Field(
        pattern=ID_PATTERN,
        description="Id of the visualization.",
        examples=["5f0c6a4b7d8e9f00112233445566778a"],
    )
    number: int = Field(default=0, ge=0, lt=2 * MAX_IMAGES, description="Number of its image.")


class AttributionRequest(AttributionTemplate, JobOptions):
    """A request for an attribution, with the picture in another part of the body or by reference."""

    image: VisualizationImage | None = Field(
        default=None,
        description="An image of a visualization; left out where the body has a part `image`.",
    )

    def of(self, image: InputImage, references: ReferenceImages | None = None) -> ResolvedAttributionRequest:
        """The request with its pictures. References that were sent are the default of ``reference``."""
        values = {
            name: getattr(self, name)
            for name in ResolvedAttributionRequest.model_fields
            if name not in ("image", "reference_images")
        }
        if references is not None and "reference" not in self.model_fields_set:
            values["reference"] = "uploaded"
        return ResolvedAttributionRequest.model_construct(
            _fields_set=self.model_fields_set | {"image", "reference", "reference_images"},
            **values,
            image=image,
            reference_images=references,
        )


class ResolvedAttributionRequest(AttributionSpec, JobOptions):
    """A request whose picture has been read."""

    @property
    def spec(self) -> AttributionSpec:
        """The spec alone."""
        fields = AttributionSpec.model_fields
        return AttributionSpec.model_construct(**{name: getattr(self, name) for name in fields})


class AttributionLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This attribution.")
    heatmap: str | None = Field(description="The heat map; `null` unless succeeded.")
    overlay: str | None = Field(description="The heat map over the picture; `null` unless succeeded.")
    contributions: str | None = Field(description="The contributions as NPY; `null` unless succeeded.")
    events: str = Field(description="Its server-sent events.")
    cancel: str = Field(description="POST there to cancel it.")
    retry: str = Field(description="POST there to try it again, after it has failed or was canceled.")


class AttributionSummary(BaseModel):
    """One attribution in a list: without its result."""

    id: str = Field(description="32 hex digits.")
    state: State = Field(description="`queued` → `running` → `succeeded`, `failed` or `canceled`.")
    progress: Progress = Field(
        description="A step for each reference, and of integrated gradients for each of its points; once "
        "succeeded with the value of the objective."
    )
    spec: AttributionSpec = Field(description="What is attributed, with every default filled in.")
    problem: Problem | None = Field(description="Why there is no result; `null` unless failed or canceled.")
    priority: Priority | None = Field(description="Priority in the queue; `null` once ended.")
    created_at: UtcTime = Field(description="When it was last put into the queue (UTC).")
    started_at: UtcTime | None = Field(description="When a worker started it (UTC).")
    finished_at: UtcTime | None = Field(description="When it ended (UTC).")
    links: AttributionLinks = Field(description="Related resources.")


class Attribution(AttributionSummary):
    """One attribution: its spec, its state, its result."""

    queue_position: int | None = Field(description="Jobs ahead of this one; `null` unless queued.")
    eta_s: float | None = Field(
        description="Estimated seconds until the end; `null` where nothing is known, and once ended."
    )
    result: AttributionResult | None = Field(description="What was found; `null` unless succeeded.")
    blocked: Problem | None = Field(
        description="Why no live worker can run it now; `null` when one can, and unless queued."
    )
    deadline_at: UtcTime | None = Field(
        description="When it fails unless it has ended (UTC); `null` without a deadline, and once ended."
    )
    waited_s: float = Field(description="Seconds from request to start, or until now.")
    ran_s: float | None = Field(description="Seconds from start to end, or until now; `null` before.")

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state not in ("queued", "running")


class AttributionPage(BaseModel):
    """A page of attributions, newest first."""

    attributions: list[AttributionSummary] = Field(
        description=f"At most `limit`. A page scans {MAX_SCANNED} records at most, so with filters it may be "
        "shorter, even empty, and still have a next one."
    )
    unreadable: list[str] = Field(
        default=[], description="Ids of attributions on the way whose records this server cannot read."
    )
    links: PageLinks = Field(description="Related resources.")
