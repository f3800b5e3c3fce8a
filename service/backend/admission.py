"""Admission control: whether this server takes a request, by its operator's limits and allowed hosts."""

from __future__ import annotations

from typing import TypeVar

from proxygrad.errors import UnitOutOfRange
from proxygrad.protocol.problems import FieldError
from proxygrad.protocol.requests import JobOptions
from proxygrad.spec import ModelInfo, Spec
from service.problems import ProblemError
from service.settings import ServiceSettings
from service.webhooks.urls import AllowedHosts

Options = TypeVar("Options", bound=JobOptions)


def check_webhook(request: Options, allowed: AllowedHosts) -> Options:
    """The request with its webhook URL in canonical form; raises `webhook_refused`."""
    if request.webhook is None:
        return request
    return request.model_copy(update={"webhook": allowed.check(request.webhook)})


def check_limits(spec: Spec, model: ModelInfo, settings: ServiceSettings) -> None:
    """Check the resolved ``spec`` against the limits; raises `limit_exceeded` or `cost_too_high`."""
    size_px = spec.size_px or max(model.input_shape[1:])
    _check_limit("steps", spec.steps, settings.max_steps, "PROXYGRAD_MAX_STEPS")
    _check_limit("size_px", size_px, settings.max_size_px, "PROXYGRAD_MAX_SIZE_PX")
    cost = spec.cost(model)
    if cost > settings.max_cost:
        counted = f" × {spec.lanes} images" if spec.lanes > 1 else ""
        detail = (
            f"the request costs {cost:.6g} megapixel steps (steps × height × width{counted} / 10⁶), and this "
            f"server's limit is {settings.max_cost:g} (its operator's PROXYGRAD_MAX_COST); use fewer steps, "
            f"pixels{' or images, or no comparison' if spec.compare else ' or images' if counted else ''}"
        )
        flaw = FieldError(
            location=["body"], detail="costs too much", value=round(cost, 6), maximum=settings.max_cost
        )
        raise ProblemError("cost_too_high", detail, [flaw])


def check_batch_size(count: int, settings: ServiceSettings) -> None:
    """Check the number of units of a batch; raises `limit_exceeded`."""
    limit = settings.max_batch_units
    if count > limit:
        detail = (
            f"{count} units are more than this server takes in one batch: {limit} (its operator's "
            "PROXYGRAD_MAX_BATCH_UNITS); split it, for example into ranges of units"
        )
        flaw = FieldError(location=["body", "units"], detail=detail, value=count, maximum=limit)
        raise ProblemError("limit_exceeded", detail, [flaw])


def units_out_of_range(error: UnitOutOfRange) -> ProblemError:
    """The problem of a batch that names a unit which its layer does not have."""
    minimum, maximum = error.valid_range
    flaw = FieldError(location=["body", "units"], detail=str(error), value=error.unit)
    flaw.minimum, flaw.maximum = minimum, maximum
    return ProblemError("unit_out_of_range", str(error), [flaw])


def _check_limit(field: str, value: int, limit: int, variable: str) -> None:
    if value > limit:
        detail = f"{field} {value} is above this server's limit of {limit} (its operator's {variable})"
        flaw = FieldError(location=["body", field], detail=detail, value=value, maximum=limit)
        raise ProblemError("limit_exceeded", detail, [flaw])
