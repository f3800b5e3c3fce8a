"""The client's exceptions, and the one place where httpx's errors and HTTP responses are turned into them.

::

    ProxyGradError
    └── ServiceError                any error of the client
        ├── ServiceUnreachable      no response from the address
        │   └── BadAddress          not the address of a server
        ├── Refused                 the response is a problem
        │   ├── Invalid             400, 413, 415, 422: the request is not valid
        │   ├── Unauthorized        401: no key, or an invalid one
        │   ├── Forbidden           403: the key lacks a scope
        │   ├── NotFound            404: no such model, layer, visualization, batch or image
        │   ├── Conflict            409: it has ended, or an idempotency key belongs to another request
        │   ├── RateLimited         429: too many requests of this key
        │   │   └── QueueFull       429: too many jobs are waiting or running
        │   └── Unavailable         503: Redis, the store, a worker or the model is unavailable
        ├── Unsuccessful            a visualization or a batch has ended without success
        │   ├── Failed
        │   └── Canceled
        ├── StillRunning            a wait has timed out; a TimeoutError too
        ├── InvalidArgument         an argument cannot be sent; a ValueError too
        ├── ClientClosed            the client is closed, or of another event loop; a RuntimeError too
        └── SaveError               a file cannot be written
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import ValidationError

from proxygrad.errors import ProxyGradError
from proxygrad.protocol.problems import Problem, ProblemDetails


class ServiceError(ProxyGradError):
    """Base of the client's errors. ``code`` is the problem's code, where the response is a problem.

    ``status``: the HTTP status, where there is a response. ``retry_after_s``: seconds after which trying
    again may help, where the service says so.
    """

    code = "service_error"

    def __init__(self, detail: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


class ServiceUnreachable(ServiceError):
    """No response from the address. ``unsent``: the request certainly never reached a server."""

    code = "service_unreachable"

    def __init__(self, detail: str, *, unsent: bool = False) -> None:
        super().__init__(detail)
        self.unsent = unsent


class BadAddress(ServiceUnreachable):
    """Not the address of a server."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, unsent=True)


class Refused(ServiceError):
    """The service responded with a problem; ``problem`` is the whole document."""

    def __init__(self, problem: ProblemDetails, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.detail} [{problem.code}]", problem.status, retry_after_s)
        self.problem = problem
        self.code = problem.code


class Invalid(Refused):
    """The request is not valid; ``problem.errors`` lists what is wrong, value by value."""


class Unauthorized(Refused):
    """No key was sent, or one that is unknown, wrong, expired or revoked."""


class Forbidden(Refused):
    """The key lacks the scope that the message names."""


class NotFound(Refused):
    """There is no such model, layer, visualization, batch or image, or not for this key."""


class Conflict(Refused):
    """It has ended otherwise (``problem.state``), or an idempotency key was used for another request."""


class RateLimited(Refused):
    """Too many requests of this key in a minute; ``retry_after_s`` says when the next is allowed."""


class QueueFull(RateLimited):
    """Too many jobs are waiting or running, in all or of this key; nothing was queued."""


class Unavailable(Refused):
    """Redis, the store, a worker or the model is unavailable."""


class Unsuccessful(ServiceError):
    """A visualization or a batch has ended without success. ``problem`` says why, where it is known."""

    code = "unsuccessful"

    def __init__(self, subject: str, state: str, problem: Problem | None, more: str = "") -> None:
        reason = "" if problem is None else f": {problem.detail} [{problem.code}]"
        super().__init__(f"{subject} {state}{more}{reason}")
        self.state = state
        self.problem = problem
        self.code = state if problem is None else problem.code


class Failed(Unsuccessful):
    """It failed; ``retry()`` queues it again."""


class Canceled(Unsuccessful):
    """It was canceled; ``retry()`` queues it again."""


class StillRunning(ServiceError, TimeoutError):
    """A wait has timed out. The job goes on; waiting again continues the wait."""

    code = "still_running"


class InvalidArgument(ServiceError, ValueError):
    """An argument cannot be sent, and nothing was. What the service itself refuses is `Invalid`."""

    code = "invalid_argument"


class ClientClosed(ServiceError, RuntimeError):
    """The client is closed, or belongs to another event loop. Nothing was sent."""

    code = "client_closed"


class SaveError(ServiceError):
    """A file cannot be written."""

    code = "save_failed"


_BY_STATUS: dict[int, type[Refused]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    503: Unavailable,
}

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn httpx's errors into `ServiceError`; none of them repeats a header."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise BadAddress(f"{address!r} is not the address of a server: {error}") from error
    except httpx.LocalProtocolError as error:  # ours, and the same the next time
        raise ServiceError(f"the request to {address} cannot be sent: {error}") from error
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        unsent = isinstance(error, _NEVER_SENT)
        raise ServiceUnreachable(
            f"no ProxyGrad service answers at {address} ({reason})", unsent=unsent
        ) from error
    except httpx.RequestError as error:
        raise ServiceError(f"the response of {address} cannot be read: {error}") from error


def response_error(response: httpx.Response, url: str) -> ServiceError:
    """The error for a response without success; ``url``: as messages may show it."""
    status = response.status_code
    if response.has_redirect_location:
        target = response.headers["location"]
        return ServiceError(f"{url} answered {status} and leads to {target}; use that address", status)
    problem = _problem(response)
    if problem is None:
        message = f"{url} answered {status} {response.reason_phrase}".rstrip()
        return ServiceError(message, status, retry_after_s(response.headers))
    kind = _BY_STATUS.get(status, Refused)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        kind = RateLimited if problem.code == "rate_limited" else QueueFull
    return kind(problem, retry_after_s(response.headers))


def unreadable(url: str, status: int) -> ServiceError:
    """The error for a response of another service, or of another version."""
    return ServiceError(f"{url} does not answer as a ProxyGrad service of this version does", status)


def _problem(response: httpx.Response) -> ProblemDetails | None:
    """The problem document, also with a code newer than this client; None if it is none."""
    try:
        return ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        pass
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    if not all(isinstance(document.get(name), str) for name in ("code", "detail")):
        return None
    defaults = {"type": "about:blank", "title": document["code"], "errors": [], "state": None}
    return ProblemDetails.model_construct(**{**defaults, **document, "status": response.status_code})


def retry_after_s(headers: httpx.Headers) -> float | None:
    """`Retry-After` in seconds from now, be it a number or a date (RFC 9110, section 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        seconds = (at - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
