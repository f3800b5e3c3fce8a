"""Exception handlers: every error becomes an `application/problem+json` response here and nowhere else.

Responses never carry a traceback; the cause of a 5xx goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, get_args
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError, ResponseError
from starlette.exceptions import HTTPException

from proxygrad.errors import (
    InvalidRequest,
    ObjectiveMismatch,
    PositionMismatch,
    PositionOutOfRange,
    UnitOutOfRange,
    UnknownLayer,
    UnknownModel,
)
from proxygrad.protocol.problems import MEDIA_TYPE, FieldError, ProblemCode
from service.problems import ProblemError
from service.web.links import link
from service.web.validation import invalid_request, shortened, shown
from workers.errors import (
    QueueLimitReached,
    QueueMemoryFull,
    StorageError,
    TooManyWebhooks,
    UnreadableRecord,
)

log = logging.getLogger(__name__)

_CODES: frozenset[str] = frozenset(get_args(ProblemCode))
_ROUTING: dict[int, ProblemCode] = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

#: The field of a request that each error of the library is about.
_NAMES: dict[type[InvalidRequest], str] = {
    UnknownModel: "model",
    UnknownLayer: "layer",
    UnitOutOfRange: "unit",
    PositionOutOfRange: "position",
    ObjectiveMismatch: "objective",
    PositionMismatch: "position",
}


def install(app: FastAPI) -> None:
    """Make every error of `app` an `application/problem+json` response."""
    app.exception_handler(ProblemError)(_problem)
    app.exception_handler(InvalidRequest)(_invalid_path)
    app.exception_handler(RequestValidationError)(_validation)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(QueueLimitReached)(_queue_full)
    app.exception_handler(TooManyWebhooks)(_too_many_webhooks)
    app.exception_handler(QueueMemoryFull)(_no_memory)
    app.exception_handler(OutOfMemoryError)(_no_memory)
    app.exception_handler(RedisError)(_redis)
    app.exception_handler(StorageError)(_storage)
    app.exception_handler(UnreadableRecord)(_unreadable)
    app.exception_handler(Exception)(_unexpected)


def problem_of_error(
    error: InvalidRequest, part: Literal["body", "path"], values: Mapping[str, object]
) -> ProblemError:
    """The problem for an error of the library about ``values``, which came in that part of the request."""
    own = error.code if error.code in _CODES else "bad_request"
    code: ProblemCode = "invalid_request" if own == "bad_request" else own  # type: ignore[assignment]
    name = _NAMES.get(type(error))
    if name is None:
        return ProblemError(code, str(error))
    minimum, maximum = getattr(error, "valid_range", (None, None))
    field_error = FieldError(location=[part, name], detail=str(error), value=shown(values.get(name)))
    field_error.minimum, field_error.maximum = minimum, maximum
    field_error.choices = list(getattr(error, "choices", ())) or None
    return ProblemError(code, str(error), [field_error])


def respond(error: ProblemError) -> JSONResponse:
    """The response for a problem."""
    content = error.details().model_dump(mode="json")
    headers = {"Cache-Control": "no-store", **error.headers()}
    return JSONResponse(content, error.status, headers, MEDIA_TYPE)


def redis_problem(request: Request, error: RedisError) -> ProblemError:
    """The problem of a Redis that does not answer, or refuses a command; logs the reason."""
    log.warning("Redis failed during %s: %s", _named(request), error)
    if isinstance(error, ResponseError | AuthenticationError):
        said = str(error).partition("\n")[0]
        return ProblemError("redis_unavailable", f"Redis answers, and refuses a command: {said:.300}")
    return ProblemError("redis_unavailable", "Redis does not answer; nothing was lost, try again shortly")


def _named(request: Request) -> str:
    """Method and path for the log: quoted, so that callers write no lines of it."""
    return f"{request.method} {quote(request.scope['path'])}"


def allowed_methods(app: FastAPI, path: str) -> set[str]:
    """The methods that ``path`` takes, of all routes."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    return set[str]().union(*(route.methods or () for route in routes if route.path_regex.match(path)))


async def _problem(request: Request, error: ProblemError) -> Response:
    return respond(error)


async def _invalid_path(request: Request, error: InvalidRequest) -> Response:
    return respond(problem_of_error(error, "path", request.path_params))


async def _validation(request: Request, error: RequestValidationError) -> Response:
    return respond(invalid_request(error.errors()))


async def _http(request: Request, error: HTTPException) -> Response:
    if isinstance(error.__cause__, ProblemError):  # FastAPI wraps whatever goes wrong while it reads a body
        return respond(error.__cause__)
    code = _ROUTING.get(error.status_code, "bad_request")
    headers = dict(error.headers or {})
    if code == "method_not_allowed":
        # The routing names those of the first route alone, and a path may have several.
        methods = {*headers.get("Allow", "").split(", "), *allowed_methods(request.app, request.url.path)}
        headers["Allow"] = ", ".join(sorted(methods - {""}))
    allowed = headers.get("Allow", "")
    path = shortened(request.url.path)
    details = {
        "not_found": f"there is nothing at {path!r}; {_hint(request)}",
        "method_not_allowed": f"{request.method} does not apply to {path!r}; valid: {allowed}",
    }
    response = respond(ProblemError(code, details.get(code, str(error.detail))))
    response.headers.update(headers)
    return response


def _hint(request: Request) -> str:
    """Where to look instead: what a path with a slash too many means, or the list of all paths."""
    bare = request.url.path.rstrip("/")
    if bare != request.url.path and allowed_methods(request.app, bare):
        return f"without the slash at its end there is: {shortened(link(bare))!r}"
    return f"{link('/docs')} lists all paths"


async def _queue_full(request: Request, error: QueueLimitReached) -> Response:
    code: ProblemCode = error.code if error.code in _CODES else "queue_full"  # type: ignore[assignment]
    return respond(ProblemError(code, f"{error}; nothing was queued", retry_after_s=error.retry_after_s))


async def _too_many_webhooks(request: Request, error: TooManyWebhooks) -> Response:
    return respond(ProblemError("too_many_webhooks", f"{error}; nothing was queued"))


async def _no_memory(request: Request, error: QueueMemoryFull | OutOfMemoryError) -> Response:
    log.error("Redis refused %s: %s", _named(request), error)
    return respond(
        ProblemError(
            "queue_memory_full", "Redis has reached its maxmemory: nothing was queued, running jobs go on"
        )
    )


async def _redis(request: Request, error: RedisError) -> Response:
    return respond(redis_problem(request, error))


async def _storage(request: Request, error: StorageError) -> Response:
    log.error("the store failed during %s: %s", _named(request), error)
    return respond(
        ProblemError("storage_unavailable", "the artifact store cannot be read or written; try again later")
    )


async def _unreadable(request: Request, error: UnreadableRecord) -> Response:
    log.error("%s", error)
    detail = f"{error}; delete it, and request it again to have it computed anew"
    return respond(ProblemError("unreadable_record", detail))


async def _unexpected(request: Request, error: Exception) -> Response:
    # The server logs the traceback: starlette raises the error again once this response is sent.
    return respond(ProblemError("internal_error", "the server failed; its log says why"))
