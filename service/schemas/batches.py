"""What the gateway answers about batches, as documents: shared by the routes and the client.

Timestamps are UTC; they travel as RFC 3339.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from proxygrad.spec import VisualizationTemplate
from service.schemas.pagination import PageLinks
from workers.batches import repository as batches
from workers.batches.repository import BatchState, UnitState
from workers.jobs.repository import Priority, Problem


class BatchUnits(BaseModel):
    """Which units a batch is about: a range, or the units one by one."""

    total: int = Field(description="How many they are.")
    start: int | None = Field(description="First unit of the range; `null` where they are listed.")
    stop: int | None = Field(description="End of the range, itself not part of it; `null` where listed.")
    step: int | None = Field(description="From one unit of the range to the next; `null` where listed.")
    numbers: list[int] | None = Field(
        description="The units in the order asked for, where they are no range; `null` otherwise, and in "
        "lists of batches."
    )

    @classmethod
    def of(cls, units: Sequence[int], *, briefly: bool) -> BatchUnits:
        """The document of ``units``; ``briefly``: a long list is left out."""
        if isinstance(units, range):
            return cls(total=len(units), start=units.start, stop=units.stop, step=units.step, numbers=None)
        numbers = None if briefly else list(units)
        return cls(total=len(units), start=None, stop=None, step=None, numbers=numbers)


class BatchCounts(BaseModel):
    """How many units of a batch are in each state; together they are its total."""

    waiting: int = Field(description="Not put into the queue yet: a batch has a bounded number there.")
    queued: int = Field(description="In the queue.")
    running: int = Field(description="Being computed.")
    succeeded: int = Field(description="Answered, those that had been answered before included.")
    failed: int = Field(description="Ended without an answer; each says why.")
    canceled: int = Field(description="Ended because nobody wanted them any more.")


class BatchLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This batch.")
    visualizations: str = Field(description="Its units, each with its visualization.")
    atlas: str = Field(description="Its contact sheet, as far as there are pictures.")
    cancel: str = Field(description="Where a POST cancels it.")


class Batch(BaseModel):
    """Many units of one layer, asked with the same settings, and how far their answers are."""

    id: str = Field(
        description="32 hex digits; the same units and settings about the same weights, asked by the same "
        "caller, have the same id."
    )
    state: BatchState = Field(
        description="`running` until every unit has ended; then `canceled` where that was asked for and cut "
        "it short, else `failed` where a unit failed, else `succeeded`."
    )
    model: str = Field(description="Name of the model.")
    layer: str = Field(description="Dotted name of the layer.")
    template: VisualizationTemplate = Field(
        description="What is asked of every unit, every default that depends on the model filled in."
    )
    units: BatchUnits = Field(description="Which units it is about.")
    counts: BatchCounts = Field(description="How many of them are in each state.")
    priority: Priority = Field(description="The turn of its units among all that wait.")
    deadline_at: datetime | None = Field(
        description="When units that have not ended fail (UTC); `null` without a deadline."
    )
    created_at: datetime = Field(description="When it was asked for, the last time anew (UTC).")
    finished_at: datetime | None = Field(description="When its last unit ended (UTC); `null` while running.")
    problem: Problem | None = Field(
        description="Why units were not even put into the queue, as when the model's weights changed "
        "meanwhile; `null` where all were. What befell single units stands with them."
    )
    links: BatchLinks = Field(description="Where to go on.")

    @property
    def ended(self) -> bool:
        """True when the state will not change by itself any more."""
        return self.state != "running"

    @classmethod
    def of(cls, batch: batches.Batch, base: str, *, briefly: bool = False) -> Batch:
        """The document of ``batch``; ``base`` is the path of all batches."""
        path = f"{base}/{batch.id}"
        return cls(
            id=batch.id,
            state=batch.state,
            model=batch.template.model,
            layer=batch.template.layer,
            template=batch.template,
            units=BatchUnits.of(batch.units, briefly=briefly),
            counts=BatchCounts.model_validate({"waiting": batch.waiting, **batch.counts}),
            priority=batch.priority,
            deadline_at=_utc(batch.deadline_at),
            created_at=datetime.fromtimestamp(batch.created_at, tz=UTC),
            finished_at=_utc(batch.finished_at),
            problem=batch.problem,
            links=BatchLinks(
                self=path,
                visualizations=f"{path}/visualizations",
                atlas=f"{path}/atlas",
                cancel=f"{path}/cancel",
            ),
        )


def _utc(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, tz=UTC)


class BatchPage(BaseModel):
    """Some of a caller's batches, the newest first."""

    batches: list[Batch] = Field(
        description="At most `limit`. A page looks at 1000 at most, so with filters it may be shorter, even "
        "empty, and still have a next one."
    )
    links: PageLinks = Field(description="Where to go on.")


class BatchUnit(BaseModel):
    """One unit of a batch, and where its answer stands."""

    unit: int = Field(description="Number of the unit in its layer, from 0.")
    id: str | None = Field(description="Id of its visualization; `null` where it was not queued yet.")
    state: UnitState = Field(
        description="`waiting` → `queued` → `running` → `succeeded`, `failed` or `canceled`."
    )
    achieved_activation: float | None = Field(
        description="The unit's activation on the delivered image, in its own scale; `null` unless succeeded."
    )
    problem: Problem | None = Field(description="Why there is no answer; `null` unless failed or canceled.")
    href: str | None = Field(
        description="The visualization, relative to this server; `null` where it was not queued yet."
    )
    image: str | None = Field(
        description="The picture with that activation, relative to this server; `null` unless succeeded."
    )

    @classmethod
    def of(cls, unit: batches.Unit, base: str) -> BatchUnit:
        """The document of ``unit``; ``base`` is the path of all visualizations."""
        href = None if unit.job_id is None else f"{base}/{unit.job_id}"
        return cls(
            unit=unit.number,
            id=unit.job_id,
            state=unit.state,
            achieved_activation=unit.activation,
            problem=unit.problem,
            href=href,
            image=f"{href}/images/{unit.best}" if unit.state == "succeeded" else None,
        )


class BatchUnitPage(BaseModel):
    """Some of a batch's units, in their order."""

    visualizations: list[BatchUnit] = Field(description="At most `limit`.")
    links: PageLinks = Field(description="Where to go on.")
