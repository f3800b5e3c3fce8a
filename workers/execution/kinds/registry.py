"""The computations by the name of their kind."""

from __future__ import annotations

from collections.abc import Mapping

from workers.execution.kinds import attribution, visualization
from workers.execution.kinds.base import Computation
from workers.jobs.kinds.attribution import ATTRIBUTION
from workers.jobs.kinds.visualization import VISUALIZATION

COMPUTATIONS: Mapping[str, Computation] = {
    VISUALIZATION.name: visualization.compute,
    ATTRIBUTION.name: attribution.compute,
}
