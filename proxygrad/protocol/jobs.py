"""What documents of every kind of job have in common: states, progress, artifacts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from proxygrad.protocol.base import Record

State = Literal["queued", "running", "succeeded", "failed", "canceled"]


class Progress(BaseModel):
    """How many gradient steps of a job are done."""

    step: int = Field(description="Gradient steps done.")
    steps: int = Field(description="Total gradient steps.")
    activation: float | None = Field(
        description="The unit's activation at the last progress report; `null` before the first step. The "
        "one that counts is `result.achieved_activation`."
    )


class ArtifactInfo(Record):
    """One stored file of a job; the digest is of the stored bytes."""

    sha256: str = Field(description="SHA-256 of the stored bytes, 64 hex digits.")
    size_bytes: int = Field(description="Size of the stored file in bytes.")
    media_type: str = Field(description="Media type of the stored file.")


class CallerCancellation(BaseModel):
    """What was canceled of one caller."""

    visualizations: int = Field(
        description="Number of visualizations that waited or ran, units of batches included. Runs are asked "
        "to stop."
    )
    batches: int = Field(description="Number of batches that ran.")
