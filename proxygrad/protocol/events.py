"""Server-sent events of a visualization: the kinds, and the data of each."""

from __future__ import annotations

from typing import Literal

from pydantic import Base64Bytes, BaseModel, Field

from proxygrad.protocol.jobs import Progress, State
from proxygrad.protocol.problems import Problem

EventKind = Literal["state", "progress", "preview"]


class StateEvent(BaseModel):
    """The data of an event `state`: the state has changed."""

    state: State = Field(description="`queued`, `running`, `succeeded`, `failed` or `canceled`.")
    problem: Problem | None = Field(description="Why there is no result; `null` unless failed or canceled.")

    @property
    def final(self) -> bool:
        """Whether no event follows."""
        return self.state not in ("queued", "running")


class ProgressEvent(Progress):
    """The data of an event `progress`: gradient steps were done."""


class PreviewEvent(BaseModel):
    """Data of a `preview` event: the current image."""

    step: int = Field(description="Gradient steps done.")
    media_type: str = Field(description="Media type of the image: `image/png`.")
    data: Base64Bytes = Field(description="The image in base64, at most 128 px wide and high.")


Event = StateEvent | ProgressEvent | PreviewEvent

#: The model of the data of each kind of event.
EVENTS: dict[EventKind, type[Event]] = {
    "state": StateEvent,
    "progress": ProgressEvent,
    "preview": PreviewEvent,
}
