"""The `Idempotency-Key` header: one key, one request (draft-ietf-httpapi-idempotency-key-header).

Requests are safe to repeat without it: the same one has the same id. With a key, a repeated request is never
taken for a new one, so it does not start a failed job, or the failed units of a batch, again; and a key that
was used for another request is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol, TypeVar, cast

import fastapi
from redis import Redis

from proxygrad.protocol.problems import FieldError
from service.backend.long_polling import header_parameter
from service.problems import ProblemError
from service.web.validation import shown
from workers.broker.keys import idempotency_key
from workers.broker.scripts import Script

KEPT_S = 24 * 3600
MAX_LENGTH = 255

_DESCRIPTION = (
    "A unique name for this request, such as a UUID, kept for 24 hours. The same key with the same body "
    "returns the same visualization or batch, with another body 409."
)
#: The header, as OpenAPI has it.
PARAMETER: dict[str, Any] = header_parameter(
    "idempotency-key", _DESCRIPTION, minLength=1, maxLength=MAX_LENGTH
)
#: For a route that FastAPI reads the header for.
IdempotencyKey = Annotated[
    str | None, fastapi.Header(min_length=1, max_length=MAX_LENGTH, description=_DESCRIPTION)
]


class IdempotentRequest(Protocol):
    """The body of a request: a pydantic model."""

    def model_dump_json(self, *, exclude_unset: bool) -> str: ...  # noqa: D102


class _Identified(Protocol):
    """A job or a batch."""

    @property
    def id(self) -> str: ...


Found = TypeVar("Found", bound=_Identified)


def key_of(request: fastapi.Request) -> str | None:
    """The request's key, if it has one. Raises `invalid_request`."""
    key = request.headers.get("idempotency-key")
    if key is None or 0 < len(key) <= MAX_LENGTH:
        return key
    detail = f"should have 1 to {MAX_LENGTH} characters, not {len(key)}"
    field_error = FieldError(location=["header", "idempotency-key"], detail=detail, value=shown(key))
    raise ProblemError("invalid_request", f"header.idempotency-key: {detail}", [field_error])


class Idempotency:
    """The keys that were used, and the jobs and batches they led to. Safe to share between threads.

    ``call`` runs a blocking function in a thread.
    """

    def __init__(self, redis: Redis, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call
        self._begin = Script(redis, "idempotency/begin", package="service")
        self._end = Script(redis, "idempotency/end", package="service")

    async def once(
        self,
        caller: str,
        key: str | None,
        request: IdempotentRequest,
        find: Callable[[str], Awaitable[Found | None]],
        submit: Callable[[], Awaitable[Found]],
    ) -> Found:
        """What ``submit`` returns; with a key that was used before, what ``find`` has of the same id.

        Raises `ProblemError` with `idempotency_key_reused`, and what the two raise.
        """
        if key is None:
            return await submit()
        earlier_id = await self._call(self.begin, caller, key, request)
        if earlier_id is not None:
            earlier = await find(earlier_id)
            if earlier is not None:
                return earlier
        led_to = None
        try:
            found = await submit()
            led_to = found.id
            return found
        finally:
            await self._call(self.end, caller, key, request, led_to)

    def begin(self, caller: str, key: str, request: IdempotentRequest) -> str | None:
        """Reserve the key: the id of what it already led to, or None.

        Raises `ProblemError` with `idempotency_key_reused` where it was used for another request.
        """
        print_ = fingerprint(request)
        known = cast("bytes | None", self._begin(_key(caller, key), print_, KEPT_S))
        if known is None:
            return None
        first, _, led_to = known.decode().partition(" ")
        if first != print_:
            detail = f"the Idempotency-Key {key!r} was used for another request within the last 24 hours"
            raise ProblemError("idempotency_key_reused", detail)
        return led_to or None

    def end(self, caller: str, key: str, request: IdempotentRequest, led_to: str | None) -> None:
        """Store what the request led to; None: nothing, so that the key is free again."""
        print_ = fingerprint(request)
        value = f"{print_} {led_to}" if led_to else ""
        self._end(_key(caller, key), print_, value, KEPT_S)


def fingerprint(request: IdempotentRequest) -> str:
    """A digest of the request: equal for equal fields, in whatever order and spacing."""
    return hashlib.sha256(request.model_dump_json(exclude_unset=True).encode()).hexdigest()


def _key(caller: str, key: str) -> str:
    return idempotency_key(caller, hashlib.sha256(key.encode()).hexdigest())
