"""Documents about batches: many units of one layer, visualized with the same settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from proxygrad.protocol.base import UtcTime
from proxygrad.protocol.jobs import State
from proxygrad.protocol.pagination import MAX_SCANNED, PageLinks
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import Priority
from proxygrad.spec import VisualizationTemplate

BatchState = Literal["running", "succeeded", "failed", "canceled"]
UnitState = Literal["waiting"] | State


class BatchUnits(BaseModel):
    """The units of a batch: a range, or a list."""

    total: int = Field(description="Number of units.")
    start: int | None = Field(description="First unit of the range; `null` of a list.")
    stop: int | None = Field(description="End of the range, exclusive; `null` of a list.")
    step: int | None = Field(description="From one unit of the range to the next; `null` of a list.")
    numbers: list[int] | None = Field(
        description="The units in the requested order, where they are no range; `null` otherwise, and in "
        "lists of batches."
    )


class BatchCounts(BaseModel):
    """The number of units of a batch in each state; they add up to its total."""

    waiting: int = Field(description="Not in the queue yet: a batch has a bounded number of jobs there.")
    queued: int = Field(description="In the queue.")
    running: int = Field(description="Being computed.")
    succeeded: int = Field(description="Succeeded, including those computed before.")
    failed: int = Field(description="Failed, each with a problem.")
    canceled: int = Field(description="Canceled.")


class BatchLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This batch.")
    visualizations: str = Field(description="Its units, each with its visualization.")
    atlas: str = Field(description="Its contact sheet, with the images made so far.")
    cancel: str = Field(description="POST there to cancel it.")


class Batch(BaseModel):
    """Many units of one layer with the same settings: their state and counts."""

    id: str = Field(
        description="32 hex digits; requests of one caller for the same units, settings and weights have the "
        "same id."
    )
    state: BatchState = Field(
        description="`running` until every unit has ended; then `canceled` if it was canceled before the "
        "end, else `failed` if a unit failed, else `succeeded`."
    )
    model: str = Field(description="Name of the model.")
    layer: str = Field(description="Dotted name of the layer.")
    template: VisualizationTemplate = Field(
        description="The spec of every unit, with every default that depends on the model."
    )
    units: BatchUnits = Field(description="Its units.")
    counts: BatchCounts = Field(description="The number of units in each state.")
    priority: Priority = Field(description="Priority of its units in the queue.")
    deadline_at: UtcTime | None = Field(
        description="When units that have not ended fail (UTC); `null` without a deadline."
    )
    created_at: UtcTime = Field(description="When it was last started (UTC).")
    finished_at: UtcTime | None = Field(description="When its last unit ended (UTC); `null` while running.")
    problem: Problem | None = Field(
        description="Why units were not put into the queue, for example because the model's weights have "
        "changed; `null` where all were. Problems of single units are listed with the units."
    )
    links: BatchLinks = Field(description="Related resources.")

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state != "running"


class BatchPage(BaseModel):
    """A page of the caller's batches, newest first."""

    batches: list[Batch] = Field(
        description=f"At most `limit`. A page scans {MAX_SCANNED} at most, so with filters it may be "
        "shorter, even empty, and still have a next one."
    )
    unreadable: list[str] = Field(
        default=[],
        description="Ids of batches on the way whose records this server cannot read: damaged, or written by "
        "a newer version. They can be deleted.",
    )
    links: PageLinks = Field(description="Related resources.")


class BatchUnitLinks(BaseModel):
    """References relative to this server."""

    visualization: str | None = Field(description="Its visualization; `null` until it is queued.")
    image: str | None = Field(description="The image with that activation; `null` unless succeeded.")


class BatchUnit(BaseModel):
    """One unit of a batch, and its visualization."""

    unit: int = Field(description="Number of the unit in its layer, from 0.")
    id: str | None = Field(description="Id of its visualization; `null` until it is queued.")
    state: UnitState = Field(
        description="`waiting` → `queued` → `running` → `succeeded`, `failed` or `canceled`."
    )
    achieved_activation: float | None = Field(
        description="The unit's activation on the image, in its own scale; `null` unless succeeded."
    )
    problem: Problem | None = Field(description="Why there is no result; `null` unless failed or canceled.")
    links: BatchUnitLinks = Field(description="Related resources.")


class BatchUnitPage(BaseModel):
    """A page of a batch's units, in their order."""

    visualizations: list[BatchUnit] = Field(description="At most `limit`.")
    links: PageLinks = Field(description="Related resources.")


# -- contact sheets ------------------------------------------------------------------------------------------

#: Width of one cell's image.
MIN_CELL_PX, MAX_CELL_PX, DEFAULT_CELL_PX = 32, 256, 64
MAX_COLUMNS, DEFAULT_COLUMNS = 128, 16
#: Longest side of a sheet, and the space between cells.
MAX_SIDE_PX, GAP_PX = 8192, 4


def most_columns(cell_px: int) -> int:
    """The most columns of cells of that width that fit on a contact sheet."""
    return min(MAX_COLUMNS, (MAX_SIDE_PX - GAP_PX) // (cell_px + GAP_PX))
