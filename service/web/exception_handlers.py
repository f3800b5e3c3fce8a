"""Foreign errors become problems here and nowhere else: one handler for each tree of exceptions.

Responses never carry a traceback; the cause of a 5xx goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from redis.exceptions import OutOfMemoryError, RedisError
from starlette.exceptions import HTTPException

from proxygrad.errors import (
    InvalidRequest,
    ObjectiveMismatch,
    PositionOutOfRange,
    UnitOutOfRange,
    UnknownLayer,
    UnknownModel,
)
from proxygrad.protocol.problems import MEDIA_TYPE, FieldError, ProblemCode
from service.problems import ProblemError
from service.web.validation import flaws, shown, summary
from workers.errors import QueueFull, QueueMemoryFull, StorageError, TooManyWebhooks

log = logging.getLogger(__name__)

_CODES: frozenset[str] = frozenset(get_args(ProblemCode))
_ROUTING: dict[int, ProblemCode] = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

#: The value of a request that each error of the science is about.
_NAMES: dict[type[InvalidRequest], str] = {
    UnknownModel: "model",
    UnknownLayer: "layer",
    UnitOutOfRange: "unit",
    PositionOutOfRange: "position",
    ObjectiveMismatch: "objective",
}


def install(app: FastAPI) -> None:
    """Make every error of `app` an `application/problem+json` response."""
    app.add_exception_handler(ProblemError, _refusal)
    app.add_exception_handler(InvalidRequest, _bad_request)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(QueueFull, _queue_full)
    app.add_exception_handler(TooManyWebhooks, _too_many_webhooks)
    app.add_exception_handler(QueueMemoryFull, _no_memory)
    app.add_exception_handler(OutOfMemoryError, _no_memory)
    app.add_exception_handler(RedisError, _redis)
    app.add_exception_handler(StorageError, _storage)
    app.add_exception_handler(Exception, _unforeseen)


def refusal_of(
    error: InvalidRequest, part: Literal["body", "path"], values: Mapping[str, object]
) -> ProblemError:
    """The refusal for what the science said of `values`, which came in that part of the request."""
    code: ProblemCode = error.code if error.code in _CODES else "bad_request"  # type: ignore[assignment]
    name = _NAMES.get(type(error))
    if name is None:
        return ProblemError(code, str(error))
    minimum, maximum = getattr(error, "valid_range", (None, None))
    flaw = FieldError(location=[part, name], detail=str(error), value=shown(values.get(name)))
    flaw.minimum, flaw.maximum = minimum, maximum
    flaw.choices = list(getattr(error, "choices", ())) or None
    return ProblemError(code, str(error), [flaw])


def respond(refusal: ProblemError) -> JSONResponse:
    """The response that carries `refusal`."""
    content = refusal.details().model_dump(mode="json")
    headers = {"Cache-Control": "no-store", **refusal.headers()}
    return JSONResponse(content, refusal.status, headers, MEDIA_TYPE)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return respond(error)


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidRequest)
    return respond(refusal_of(error, "path", request.path_params))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    said = flaws(found, [], None)
    return respond(ProblemError("invalid_request", summary(said, len(found)), said))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(
        error.__cause__, ProblemError
    ):  # FastAPI's word for whatever went wrong while it read a body
        return respond(error.__cause__)
    code = _ROUTING.get(error.status_code, "bad_request")
    headers = dict(error.headers or {})
    if code == "method_not_allowed":
        # The routing names those of the first route alone, and a path may have several.
        found = {*headers.get("Allow", "").split(", "), *allowed_methods(request.app, request.url.path)}
        headers["Allow"] = ", ".join(sorted(found - {""}))
    allowed = headers.get("Allow", "")
    details = {
        "not_found": f"there is nothing at {request.url.path!r}; /docs lists what there is",
        "method_not_allowed": f"{request.method} does not apply to {request.url.path!r}; valid: {allowed}",
    }
    response = respond(ProblemError(code, details.get(code, str(error.detail))))
    response.headers.update(headers)
    return response


def allowed_methods(app: FastAPI, path: str) -> set[str]:
    """The methods that ``path`` takes, of all routes."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    return set[str]().union(*(route.methods or () for route in routes if route.path_regex.match(path)))


async def _queue_full(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueueFull)
    code: ProblemCode = error.code if error.code in _CODES else "queue_full"  # type: ignore[assignment]
    return respond(ProblemError(code, f"{error}; nothing was queued", retry_after_s=error.retry_after_s))


async def _too_many_webhooks(request: Request, error: Exception) -> Response:
    return respond(ProblemError("too_many_webhooks", f"{error}; nothing was queued"))


async def _no_memory(request: Request, error: Exception) -> Response:
    log.error("Redis refused %s %s: %s", request.method, request.url.path, error)
    return respond(
        ProblemError(
            "queue_memory_full", "Redis has reached its maxmemory: nothing was queued, running jobs go on"
        )
    )


async def _redis(request: Request, error: Exception) -> Response:
    return respond(redis_refusal(request, error))


def redis_refusal(request: Request, error: Exception) -> ProblemError:
    """The refusal for what Redis did not answer; the log says why."""
    log.warning("Redis failed during %s %s: %s", request.method, request.url.path, error)
    return ProblemError("redis_unavailable", "Redis does not answer; nothing was lost, try again shortly")


async def _storage(request: Request, error: Exception) -> Response:
    log.error("the store failed during %s %s: %s", request.method, request.url.path, error)
    return respond(
        ProblemError("storage_unavailable", "the artifact store cannot be read or written; try again later")
    )


async def _unforeseen(request: Request, error: Exception) -> Response:
    # The server logs the traceback: starlette raises the error again once this response is sent.
    return respond(ProblemError("internal_error", "the server failed; its log says why"))
