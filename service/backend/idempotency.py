"""The `Idempotency-Key` header: one key, one request (draft-ietf-httpapi-idempotency-key-header).

Questions are safe to repeat without it: the same one has the same id. The key adds that a repeated request is
never taken for a new one, so it does not start again what has failed since, and that a key which was used for
another request is noticed.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

import fastapi
from redis import Redis

from proxygrad.protocol.problems import FieldError
from proxygrad.protocol.requests import VisualizationRequest
from service.backend.long_polling import header_parameter
from service.problems import ProblemError
from service.web.validation import shown
from workers.broker.keys import idempotency_key
from workers.broker.scripts import Script

KEPT_S = 24 * 3600
MAX_LENGTH = 255

_DESCRIPTION = (
    "A name of this request, such as a UUID, kept for 24 hours: sent again with the same body it gets the "
    "same visualization, with another body 409."
)
#: The header, as OpenAPI has it.
PARAMETER: dict[str, Any] = header_parameter(
    "idempotency-key", _DESCRIPTION, minLength=1, maxLength=MAX_LENGTH
)


def key_of(request: fastapi.Request) -> str | None:
    """The request's key, where it has one. Refuses with `invalid_request`."""
    key = request.headers.get("idempotency-key")
    if key is None or 0 < len(key) <= MAX_LENGTH:
        return key
    said = f"should have 1 to {MAX_LENGTH} characters, not {len(key)}"
    flaw = FieldError(location=["header", "idempotency-key"], detail=said, value=shown(key))
    raise ProblemError("invalid_request", f"header.idempotency-key: {said}", [flaw])


class Idempotency:
    """Which keys were used for what. Safe to share between threads."""

    def __init__(self, redis: Redis) -> None:
        self._begin = Script(redis, "idempotency/begin", package="service")
        self._end = Script(redis, "idempotency/end", package="service")

    def begin(self, caller: str, key: str, asked: VisualizationRequest) -> str | None:
        """Reserve the key: the id of the visualization that it already led to, or None.

        Raises `ProblemError` with `idempotency_key_reused` where it was used for another request.
        """
        print_ = fingerprint(asked)
        known = cast("bytes | None", self._begin(_key(caller, key), print_, KEPT_S))
        if known is None:
            return None
        first, _, job_id = known.decode().partition(" ")
        if first != print_:
            detail = f"the Idempotency-Key {key!r} was used for another request within the last 24 hours"
            raise ProblemError("idempotency_key_reused", detail)
        return job_id or None

    def end(self, caller: str, key: str, asked: VisualizationRequest, job_id: str | None) -> None:
        """Keep what it led to; None: to nothing, the key is free again."""
        print_ = fingerprint(asked)
        led_to = f"{print_} {job_id}" if job_id else ""
        self._end(_key(caller, key), print_, led_to, KEPT_S)


def fingerprint(asked: VisualizationRequest) -> str:
    """The same for bodies that say the same, in whatever order and spacing."""
    return hashlib.sha256(asked.model_dump_json(exclude_unset=True).encode()).hexdigest()


def _key(caller: str, key: str) -> str:
    return idempotency_key(caller, hashlib.sha256(key.encode()).hexdigest())
