"""The keywords of `Client.visualize` and `Client.batch`: the fields of a request, for editors and mypy.

What each means, with its unit, range and default: `proxygrad.spec.Spec` and
`proxygrad.spec.settings.AscentSettings`. A test holds them against those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Required, TypedDict

from proxygrad.protocol.requests import Priority
from proxygrad.spec import ObjectiveKind
from proxygrad.spec.settings import GafName, ParameterizationName, Preset, Proxy, UpdateName


class TemplateFields(TypedDict, total=False):
    """What is asked but for the unit, and how soon. What is not given has the service's default."""

    model: Required[str]
    layer: Required[str]
    objective: ObjectiveKind | None
    position: Sequence[int] | None
    images: int
    diversity: float
    compare: bool
    preset: Preset
    proxy: Proxy
    slope: float
    slope_end: float | None
    spread_max_pool: float
    parameterization: ParameterizationName
    update: UpdateName
    gaf: GafName
    robustness: Literal["none", "standard"]
    total_variation: float
    l2: float
    blur_px: float
    steps: int
    step_size: float
    start_noise: float
    size_px: int | None
    seed: int
    solo: bool
    priority: Priority
    deadline_s: float | None
    webhook: str | None


class Question(TemplateFields, total=False):
    """All of a question."""

    unit: Required[int]
