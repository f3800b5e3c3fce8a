"""Requests: what a client sends to have units visualized.

A request is the spec of a visualization (`proxygrad.spec.Spec`), or its template with a selection of units,
together with job options: priority, deadline, webhook. Options are no part of the id.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from proxygrad.spec import Spec, VisualizationTemplate

Priority = Literal["interactive", "batch"]

#: The caller of a request without a key, where keys are not required.
ANONYMOUS = "anonymous"

#: A day.
MAX_DEADLINE_S = 86_400.0
MAX_URL_LENGTH = 2000

#: Above the units of any layer, and an integer that every JSON reader can represent.
_UNITS_LIMIT = 2**31

UnitNumber = Annotated[int, Field(ge=0, lt=_UNITS_LIMIT)]


class JobOptions(BaseModel):
    """How soon a result is needed, and where to report its end."""

    priority: Priority = Field(
        default="interactive",
        description="`interactive` jobs always run before `batch` jobs. Not part of the id: of two requests "
        "for one job, `interactive` wins.",
    )
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Seconds from now after which the result is of no use: the job then fails, waiting or "
        "running. Not part of the id: the latest of several deadlines counts, and no deadline is later than "
        "any.",
    )
    webhook: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_URL_LENGTH,
        description="URL that receives a signed event at the end, on a host that the operator has allowed. "
        "Not part of the id: every URL of several requests receives it.",
        examples=["https://hooks.example.org/proxygrad"],
    )


class VisualizationRequest(Spec, JobOptions):
    """A request to visualize one unit."""

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """The request for ``spec`` with default options."""
        return cls.model_construct(_fields_set=set(spec.model_fields_set), **dict(spec))

    @property
    def spec(self) -> Spec:
        """The spec alone, with the same fields set explicitly."""
        fields = Spec.model_fields
        values = {name: getattr(self, name) for name in fields}
        return Spec.model_construct(_fields_set=self.model_fields_set & fields.keys(), **values)


class UnitRange(BaseModel):
    """Units from ``start`` up to, but excluding, ``stop``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: UnitNumber = Field(default=0, description="First unit.")
    stop: Annotated[int, Field(ge=1, le=_UNITS_LIMIT)] | None = Field(
        default=None, description="End of the range, exclusive; `null`: the end of the layer."
    )
    step: Annotated[int, Field(ge=1, le=_UNITS_LIMIT)] = Field(
        default=1, description="Step; 2: every other unit."
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.stop is not None and self.start >= self.stop:
            raise ValueError(f"the range is empty: start {self.start} is not below stop {self.stop}")
        return self


def _unique(units: list[int]) -> list[int]:
    seen: set[int] = set()
    for unit in units:
        if unit in seen:
            raise ValueError(f"unit {unit} is listed twice")
        seen.add(unit)
    return units


def _form(value: Any) -> str | None:
    if isinstance(value, str):
        return "all" if value == "all" else None
    if isinstance(value, list | tuple):
        return "list"
    return "range" if isinstance(value, dict | UnitRange) else None


UnitSelection = Annotated[
    Annotated[Literal["all"], Tag("all")]
    | Annotated[list[UnitNumber], Field(min_length=1, fail_fast=True), AfterValidator(_unique), Tag("list")]
    | Annotated[UnitRange, Tag("range")],
    Discriminator(
        _form,
        custom_error_type="units_form",
        custom_error_message="should be 'all', a list of units, or a range with start, stop and step",
    ),
]


class BatchRequest(VisualizationTemplate, JobOptions):
    """A request to visualize many units of a layer with the same settings."""

    units: UnitSelection = Field(
        default="all",
        description="`all` units of the layer, a list without duplicates, or a range: "
        '`{"start": 0, "stop": 64, "step": 1}`.',
        examples=["all", [3, 5, 8], {"start": 0, "stop": 64}],
    )
    priority: Priority = Field(
        default="batch",
        description="`interactive` jobs always run before `batch` jobs. Not part of the id.",
    )
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Seconds from now after which results are of no use: units that have not ended then "
        "fail. Not part of the id.",
    )

    def spec_of(self, unit: int) -> Spec:
        """The spec of one unit, with the same fields set explicitly."""
        names = VisualizationTemplate.model_fields.keys()
        values = {name: getattr(self, name) for name in names}
        given = (self.model_fields_set & names) | {"unit"}
        return Spec.model_construct(_fields_set=given, **values, unit=unit)
