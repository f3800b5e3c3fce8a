"""Admission control: whether this server takes a request, by its operator's limits and allowed hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

from proxygrad.errors import UnitOutOfRange
from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError
from service.settings import ServiceSettings
from service.webhooks.urls import AllowedHosts


class _WithWebhook(Protocol):
    """Job options, as far as webhooks are concerned."""

    @property
    def webhook(self) -> str | None: ...
    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...


Options = TypeVar("Options", bound=_WithWebhook)


def check_webhook(request: Options, allowed: AllowedHosts) -> Options:
    """The request with its webhook URL in canonical form; raises `webhook_refused`."""
    if request.webhook is None:
        return request
    return request.model_copy(update={"webhook": allowed.check(request.webhook)})


def check_batch_size(count: int, settings: ServiceSettings) -> None:
    """Check the number of units of a batch; raises `limit_exceeded`."""
    limit = settings.max_batch_units
    if count > limit:
        detail = (
            f"{count} units are more than this server takes in one batch: {limit} (its operator's "
            "PROXYGRAD_MAX_BATCH_UNITS); split it, for example into ranges of units"
        )
        field_error = FieldError(location=["body", "units"], detail=detail, value=count, maximum=limit)
        raise ProblemError("limit_exceeded", detail, [field_error])


def units_out_of_range(error: UnitOutOfRange) -> ProblemError:
    """The problem of a batch that names a unit which its layer does not have."""
    minimum, maximum = error.valid_range
    field_error = FieldError(location=["body", "units"], detail=str(error), value=error.unit)
    field_error.minimum, field_error.maximum = minimum, maximum
    return ProblemError("unit_out_of_range", str(error), [field_error])


def check_limit(field: str, value: int, limit: int, variable: str) -> None:
    """Check one field of a request; raises `limit_exceeded`."""
    if value > limit:
        detail = f"{field} {value} is above this server's limit of {limit} (its operator's {variable})"
        field_error = FieldError(location=["body", field], detail=detail, value=value, maximum=limit)
        raise ProblemError("limit_exceeded", detail, [field_error])
