"""Documents about visualizations: the job, its progress, its images, its result.

Durations are in seconds.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from proxygrad.protocol.base import UtcTime
from proxygrad.protocol.jobs import ArtifactInfo, Progress, State
from proxygrad.protocol.pagination import MAX_SCANNED, PageLinks
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import Priority
from proxygrad.spec import Result, Role, Spec


class ImageInfo(ArtifactInfo):
    """One stored image; the digest is of the stored bytes."""

    media_type: str = Field(description="Media type of the stored file: `image/png`.")
    width_px: int = Field(description="Width in pixels.")
    height_px: int = Field(description="Height in pixels.")


class ImageLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This image.")


class Image(ImageInfo):
    """One delivered image. `result.images` has its other measurements, under the same number."""

    role: Role = Field(
        description="`proxygrad`: made as requested; `baseline`: by plain activation maximization, for "
        "comparison."
    )
    seed: int = Field(description="Its seed: that of the request, plus one for each further image.")
    achieved_activation: float = Field(description="The unit's activation on it, in the unit's own scale.")
    links: ImageLinks = Field(description="Related resources.")


#: Most values of all curves of a document together, so that it stays below 64 KB.
MAX_CURVE_VALUES = 1024


class VisualizationLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This visualization.")
    image: str | None = Field(description="The best image; `null` unless succeeded.")
    grid: str | None = Field(
        default=None, description="All images as one; `null` unless succeeded with several."
    )
    animation: str | None = Field(
        default=None, description="All images in turn; `null` unless succeeded with several."
    )
    events: str = Field(description="Its server-sent events.")
    cancel: str = Field(description="POST there to cancel it.")
    retry: str = Field(description="POST there to try it again, after it has failed or was canceled.")


class Visualization(BaseModel):
    """One visualization: its spec, its state, its result."""

    id: str = Field(
        description="32 hex digits; requests for the same spec of the same weights have the same id."
    )
    state: State = Field(description="`queued` → `running` → `succeeded`, `failed` or `canceled`.")
    progress: Progress = Field(description="Gradient steps done so far.")
    queue_position: int | None = Field(description="Jobs ahead of this one; `null` unless queued.")
    eta_s: float | None = Field(
        description="Estimated seconds until the end: of a running job by the pace of its steps, of a queued "
        "one by the latest runs of its model and of all. `null` without such runs, and once ended."
    )
    spec: Spec = Field(description="What is visualized, with every default that depends on the model.")
    result: Result | None = Field(description="Measurements of the images; `null` unless succeeded.")
    curve_stride: int = Field(
        default=1,
        description="Steps from one value of a `curve` in `result` to the next. Above 1 where the curves "
        f"have more than {MAX_CURVE_VALUES} values together; the last value is of the last step all the "
        "same. The text `result` in each PNG has every value.",
    )
    images: list[Image] = Field(
        description="The delivered images, by number: those requested, then the baseline images. Empty "
        "unless succeeded."
    )
    problem: Problem | None = Field(description="Why there is no result; `null` unless failed or canceled.")
    priority: Priority | None = Field(description="Priority in the queue; `null` once ended.")
    blocked: Problem | None = Field(
        description="Why no live worker can run it now; `null` when one can, and unless queued."
    )
    deadline_at: UtcTime | None = Field(
        description="When it fails unless it has ended (UTC); `null` without a deadline, and once ended."
    )
    created_at: UtcTime = Field(description="When it was requested (UTC).")
    started_at: UtcTime | None = Field(description="When a worker started it (UTC).")
    finished_at: UtcTime | None = Field(description="When it ended (UTC).")
    waited_s: float = Field(description="Seconds from request to start, or until now.")
    ran_s: float | None = Field(description="Seconds from start to end, or until now; `null` before.")
    links: VisualizationLinks = Field(description="Related resources.")

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state not in ("queued", "running")


class VisualizationSummary(BaseModel):
    """One visualization in a list: without its result."""

    id: str = Field(description="32 hex digits.")
    state: State = Field(description="`queued`, `running`, `succeeded`, `failed` or `canceled`.")
    progress: Progress = Field(
        description="Gradient steps done so far; once succeeded, with the achieved activation."
    )
    spec: Spec = Field(description="What is visualized, with every default that depends on the model.")
    problem: Problem | None = Field(description="Why there is no result; `null` unless failed or canceled.")
    priority: Priority | None = Field(description="Priority in the queue; `null` once ended.")
    created_at: UtcTime = Field(description="When it was last put into the queue (UTC).")
    started_at: UtcTime | None = Field(description="When a worker started it (UTC).")
    finished_at: UtcTime | None = Field(description="When it ended (UTC).")
    links: VisualizationLinks = Field(description="Related resources.")


class VisualizationPage(BaseModel):
    """A page of visualizations, newest first."""

    visualizations: list[VisualizationSummary] = Field(
        description=f"At most `limit`. A page scans {MAX_SCANNED} records at most, so with filters it may be "
        "shorter, even empty, and still have a next one."
    )
    unreadable: list[str] = Field(
        default=[],
        description="Ids of visualizations on the way whose records this server cannot read: damaged, or "
        "written by a newer version. They can be deleted.",
    )
    links: PageLinks = Field(description="Related resources.")
