"""Problem types (RFC 9457): each code's HTTP status, title and retry time, and the error that carries one.

`ProblemCode` lists all codes, `KINDS` describes them. Handlers raise `ProblemError`;
`service.web.exception_handlers` turns it, and foreign errors, into a response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxygrad.protocol.problems import MEDIA_TYPE, FieldError, ProblemCode, ProblemDetails


@dataclass(frozen=True)
class ProblemType:
    """What a code always means: the HTTP status, a title, and when trying again may help."""

    status: int
    title: str
    retry_after_s: int | None = None


KINDS: Mapping[ProblemCode, ProblemType] = {
    "bad_request": ProblemType(400, "Malformed request"),
    "invalid_json": ProblemType(400, "The body is not valid JSON"),
    "json_too_deep": ProblemType(400, "The JSON is nested too deeply"),
    "invalid_multipart": ProblemType(400, "The body is not valid multipart/form-data"),
    "unauthorized": ProblemType(401, "No valid key"),
    "forbidden": ProblemType(403, "Not permitted"),
    "unknown_model": ProblemType(404, "No such model"),
    "unknown_layer": ProblemType(404, "No such layer"),
    "unknown_visualization": ProblemType(404, "No such visualization"),
    "unknown_attribution": ProblemType(404, "No such attribution"),
    "unknown_batch": ProblemType(404, "No such batch"),
    "unknown_delivery": ProblemType(404, "No such delivery"),
    "unknown_caller": ProblemType(404, "No such caller"),
    "image_not_ready": ProblemType(404, "The image is not ready yet", retry_after_s=1),
    "no_image": ProblemType(404, "No such image"),
    "not_found": ProblemType(404, "No such resource"),
    "method_not_allowed": ProblemType(405, "Method not allowed"),
    "not_acceptable": ProblemType(406, "Not available in an accepted format"),
    "visualization_ended": ProblemType(409, "The visualization has already ended"),
    "attribution_ended": ProblemType(409, "The attribution has already ended"),
    "batch_ended": ProblemType(409, "The batch has already ended"),
    "unreadable_record": ProblemType(409, "The record cannot be read"),
    "request_timeout": ProblemType(408, "The request did not arrive in time"),
    "idempotency_key_reused": ProblemType(409, "The idempotency key was used for another request"),
    "body_too_large": ProblemType(413, "The body is too large"),
    "unsupported_media_type": ProblemType(415, "Unsupported content type or encoding"),
    "range_not_satisfiable": ProblemType(416, "The range begins beyond the end"),
    "invalid_request": ProblemType(422, "Invalid request"),
    "invalid_image": ProblemType(422, "The picture cannot be used"),
    "unit_out_of_range": ProblemType(422, "The unit is out of range"),
    "position_out_of_range": ProblemType(422, "The position is out of range"),
    "objective_mismatch": ProblemType(422, "The objective does not apply to the layer"),
    "limit_exceeded": ProblemType(422, "A limit of this server is exceeded"),
    "cost_too_high": ProblemType(422, "The request is too expensive for this server"),
    "webhook_refused": ProblemType(422, "The webhook URL is not allowed"),
    "unknown_host": ProblemType(421, "Unknown host"),
    "queue_full": ProblemType(429, "The queue is full", retry_after_s=30),
    "caller_queue_full": ProblemType(429, "The caller's share of the queue is full", retry_after_s=30),
    "too_many_in_flight": ProblemType(429, "Too many unfinished jobs of this key", retry_after_s=30),
    "too_many_batches": ProblemType(429, "Too many unfinished batches of this caller", retry_after_s=30),
    "too_many_webhooks": ProblemType(
        429, "Too many webhooks for one visualization or batch", retry_after_s=30
    ),
    "too_many_streams": ProblemType(429, "Too many open event streams", retry_after_s=5),
    "rate_limited": ProblemType(429, "Rate limit exceeded", retry_after_s=1),
    "headers_too_large": ProblemType(431, "The header is too large"),
    "internal_error": ProblemType(500, "Internal error"),
    "model_unavailable": ProblemType(503, "The model could not be loaded"),
    "too_many_connections": ProblemType(503, "Too many connections", retry_after_s=5),
    "no_worker": ProblemType(503, "No worker is running", retry_after_s=5),
    "redis_unavailable": ProblemType(503, "Redis is not available", retry_after_s=2),
    "queue_memory_full": ProblemType(503, "Redis is out of memory", retry_after_s=30),
    "storage_unavailable": ProblemType(503, "The artifact store is not available", retry_after_s=5),
}


class ProblemError(Exception):
    """Ends a request with the problem of that code.

    ``retry_after_s`` overrides the one of the code; ``headers`` go with the response; ``state`` is the state
    of the visualization or batch that is in the way.
    """

    def __init__(
        self,
        code: ProblemCode,
        detail: str,
        field_errors: Sequence[FieldError] = (),
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        state: str | None = None,
    ) -> None:
        super().__init__(detail)
        self._retry_after_s = retry_after_s
        self._headers = dict(headers or {})
        self.state = state
        self.code: ProblemCode = code
        self.detail = detail
        self.field_errors = list(field_errors)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.code].status

    def details(self) -> ProblemDetails:
        """The document for the body."""
        kind = KINDS[self.code]
        return ProblemDetails(
            type=f"urn:proxygrad:problem:{self.code}",
            title=kind.title,
            status=kind.status,
            detail=self.detail,
            code=self.code,
            errors=self.field_errors,
            state=self.state,
        )

    def headers(self) -> dict[str, str]:
        """The headers of the response, `Retry-After` included."""
        retry_after_s = self._retry_after_s or KINDS[self.code].retry_after_s
        when = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        return self._headers | when


def problem_responses(*codes: ProblemCode) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these codes, one for each status, with the codes in its description."""
    by_status: dict[int, list[ProblemCode]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {status: _documented_status(status, by_status[status]) for status in sorted(by_status)}


def _documented_status(status: int, codes: list[ProblemCode]) -> dict[str, Any]:
    listed = "; ".join(f"`{code}`: {KINDS[code].title.lower()}" for code in codes)
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    response: dict[str, Any] = {"description": listed, "content": {MEDIA_TYPE: {"schema": schema}}}
    if any(KINDS[code].retry_after_s for code in codes):
        about = {"description": "Seconds after which trying again may help.", "schema": {"type": "integer"}}
        response["headers"] = {"Retry-After": about}
    return response
