"""What the documents are made of: ids, timestamps, records that tolerate newer fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, overload

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

#: Ids of visualizations, batches and deliveries.
ID_PATTERN = "^[0-9a-f]{32}$"

#: A point in time; travels as RFC 3339, and is UTC whatever offset it was written with.
UtcTime = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]

#: Seconds since 1970, as records have them, of a time that `utc_time` can convert: up to the year 9999.
EpochTime = Annotated[float, Field(ge=0, lt=253_402_300_800, allow_inf_nan=False)]


@overload
def utc_time(epoch_s: float) -> datetime: ...
@overload
def utc_time(epoch_s: None) -> None: ...
@overload
def utc_time(epoch_s: float | None) -> datetime | None: ...
def utc_time(epoch_s: float | None) -> datetime | None:
    """Convert seconds since 1970, as records have them, to a `UtcTime`."""
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, tz=UTC)


class Record(BaseModel):
    """A value that a newer version may have written: unknown fields are dropped, the schema stays exact."""

    model_config = ConfigDict(extra="ignore", frozen=True, json_schema_extra={"additionalProperties": False})
