"""Errors: what refuses a request (RFC 9457), and why a job or a model failed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from proxygrad.protocol.base import Record

#: Every code of a refusal; `service.problems` gives each its status and title.
ProblemCode = Literal[
    "bad_request",
    "invalid_json",
    "json_too_deep",
    "invalid_multipart",
    "unauthorized",
    "forbidden",
    "unknown_model",
    "unknown_layer",
    "unknown_visualization",
    "unknown_attribution",
    "unknown_batch",
    "unknown_delivery",
    "unknown_caller",
    "image_not_ready",
    "no_image",
    "not_found",
    "method_not_allowed",
    "not_acceptable",
    "visualization_ended",
    "attribution_ended",
    "batch_ended",
    "unreadable_record",
    "request_timeout",
    "idempotency_key_reused",
    "body_too_large",
    "unsupported_media_type",
    "range_not_satisfiable",
    "invalid_request",
    "invalid_image",
    "unit_out_of_range",
    "position_out_of_range",
    "objective_mismatch",
    "limit_exceeded",
    "cost_too_high",
    "webhook_refused",
    "unknown_host",
    "queue_full",
    "caller_queue_full",
    "too_many_in_flight",
    "too_many_batches",
    "too_many_webhooks",
    "too_many_streams",
    "rate_limited",
    "headers_too_large",
    "internal_error",
    "model_unavailable",
    "too_many_connections",
    "no_worker",
    "redis_unavailable",
    "queue_memory_full",
    "storage_unavailable",
]

MEDIA_TYPE = "application/problem+json"


class Problem(Record):
    """Why a job failed, or a model is not served: a stable code and a sentence for people."""

    code: str = Field(description="Stable name of what went wrong; programs branch on it.")
    detail: str = Field(description="What happened, for people.")


class FieldError(BaseModel):
    """An invalid value of a request: its location, the value, and what is valid."""

    location: list[str | int] = Field(
        description="Path to the value, beginning with `body`, `query`, `path` or `header`.",
        examples=[["body", "unit"]],
    )
    detail: str = Field(description="What is wrong with it.")
    value: JsonValue = Field(default=None, description="The invalid value, shortened if long.")
    minimum: float | int | None = Field(
        default=None, description="The smallest valid value, if there is one."
    )
    maximum: float | int | None = Field(default=None, description="The largest valid value, if there is one.")
    choices: list[str] | None = Field(default=None, description="Valid values, or similar names.")


class ProblemDetails(BaseModel):
    """An error (RFC 9457). Programs branch on `code`; people read `detail`."""

    type: str = Field(
        description="Identifies the kind of problem.", examples=["urn:proxygrad:problem:unknown_layer"]
    )
    title: str = Field(description="The kind of problem in words, the same for every occurrence.")
    status: int = Field(description="The HTTP status, repeated.")
    detail: str = Field(description="What happened, with the invalid value and the valid choices.")
    code: ProblemCode = Field(description="Stable name of the kind of problem.")
    errors: list[FieldError] = Field(
        default=[], description="What is wrong with the request, value by value."
    )
    state: str | None = Field(
        default=None, description="State of the visualization or batch, if it prevents the action."
    )
