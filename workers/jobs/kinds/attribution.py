"""The kind `attribution`: which pixels of an image made a unit respond.

The picture is stored beside the result, as `INPUT`, once the job is submitted (`workers.jobs.inputs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from proxygrad.protocol.addresses import ATTRIBUTIONS
from proxygrad.protocol.jobs import ArtifactInfo
from proxygrad.spec.attribution import KIND, AttributionResult, StoredAttributionSpec
from workers.jobs.job import Job
from workers.jobs.kinds.base import JobKind

HEATMAP, OVERLAY, CONTRIBUTIONS = "heatmap.png", "overlay.png", "contributions.npy"


class AttributionJob(Job):
    """An attribution. ``files``: the stored artifacts by name."""

    json_fields: ClassVar[frozenset[str]] = Job.json_fields | {"files"}
    result_fields: ClassVar[tuple[str, ...]] = ("result", "files")

    kind: str = KIND
    spec: StoredAttributionSpec
    result: AttributionResult | None = None
    files: Mapping[str, ArtifactInfo] = Field(default_factory=dict)

    @property
    def artifacts(self) -> Mapping[str, ArtifactInfo]:
        """Heat map, overlay and contributions."""
        return self.files

    @property
    def about(self) -> str:
        """Layer, unit and model."""
        return f"attribution of {self.spec.layer} unit {self.spec.unit} of {self.spec.model}"


class _AttributionKind(JobKind):
    def event_data(self, state: str, activation: float | None) -> Mapping[str, Any]:
        """The value of the objective; None unless it succeeded."""
        return {"value": activation if state == "succeeded" else None}


ATTRIBUTION = _AttributionKind(KIND, ATTRIBUTIONS, AttributionJob)
