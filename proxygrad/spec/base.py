"""Base classes of the project's values: exact where they are given, tolerant where they are read back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value. Unknown fields and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tolerant(Frozen):
    """A value read back from where a newer version may have written it: unknown fields are dropped.

    Its JSON schema stays as exact as that of `Frozen`.
    """

    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": False})
