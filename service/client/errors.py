"""What a client raises, and the one place where the errors of httpx and the answers of a server become it.

::

    ProxyGradError
    └── ServiceError                it refused, failed, is not there, or answers as no ProxyGrad service does
        ├── ServiceUnreachable      nothing answers at the address
        │   └── BadAddress          it is not the address of a server
        ├── Refused                 it answered with a problem
        │   ├── Invalid             400, 413, 415, 422: it cannot be answered as it was asked
        │   ├── Unauthorized        401: no key, or one that opens nothing
        │   ├── Forbidden           403: the key may not do this
        │   ├── NotFound            404: no such model, layer, visualization, batch or image
        │   ├── Conflict            409: it has ended, or an idempotency key belongs to another request
        │   ├── RateLimited         429: the key has made its requests of this minute
        │   │   └── QueueFull       429: as many jobs wait or run as may
        │   └── Unavailable         503: Redis, the store, a worker or the model is away
        ├── Unsuccessful            what was waited for has ended, and not well
        │   ├── Failed
        │   └── Canceled
        ├── StillRunning            the time to wait is over; a TimeoutError too
        ├── BadValue                what was given cannot be sent; a ValueError too
        ├── Unusable                the client is closed, or of another event loop; a RuntimeError too
        └── CannotSave              a picture cannot be written where it was wanted
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
    """The service refused, failed, or is not there. ``code`` is the problem's code.

    ``status``: of the HTTP answer, where there was one. ``retry_after_s``: the seconds after which it said
    that trying again may help.
    """

    code = "service_error"

    def __init__(self, detail: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


class ServiceUnreachable(ServiceError):
    """Nothing answers at the address. ``unsent``: it is certain that the request never reached a server."""

    code = "service_unreachable"

    def __init__(self, detail: str, *, unsent: bool = False) -> None:
        super().__init__(detail)
        self.unsent = unsent


class BadAddress(ServiceUnreachable):
    """It is not the address of a server."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, unsent=True)


class Refused(ServiceError):
    """The service answered with a problem; ``problem`` holds all of it."""

    def __init__(self, problem: ProblemDetails, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.detail} [{problem.code}]", problem.status, retry_after_s)
        self.problem = problem
        self.code = problem.code


class Invalid(Refused):
    """It cannot be answered as it was asked; ``problem.errors`` says what is wrong, value by value."""


class Unauthorized(Refused):
    """No key was sent, or one that is unknown, wrong, expired or revoked."""


class Forbidden(Refused):
    """The key lacks the scope that the message names."""


class NotFound(Refused):
    """There is no such model, layer, visualization, batch or image, or not for this key."""


class Conflict(Refused):
    """It has ended otherwise (``problem.state``), or an idempotency key was used for another request."""


class RateLimited(Refused):
    """The key has made its requests of this minute; ``retry_after_s`` says when the next is free."""


class QueueFull(RateLimited):
    """As many jobs wait or run as may, in all or of this key; nothing was queued."""


class Unavailable(Refused):
    """Redis, the store, a worker or the model is away."""


class Unsuccessful(ServiceError):
    """What was waited for has ended without what was wanted. ``problem`` says why, where it is known."""

    code = "unsuccessful"

    def __init__(self, what: str, state: str, problem: Problem | None, more: str = "") -> None:
        reason = "" if problem is None else f": {problem.detail} [{problem.code}]"
        super().__init__(f"{what} {state}{more}{reason}")
        self.state = state
        self.problem = problem
        self.code = state if problem is None else problem.code


class Failed(Unsuccessful):
    """It failed; ``retry()`` queues it again."""


class Canceled(Unsuccessful):
    """It was canceled; ``retry()`` queues it again."""


class StillRunning(ServiceError, TimeoutError):
    """The time to wait is over, and it has not ended. It goes on; waiting again goes on waiting."""

    code = "still_running"


class BadValue(ServiceError, ValueError):
    """What was given cannot be sent, and nothing was. What the service itself refuses is `Invalid`."""

    code = "bad_value"


class Unusable(ServiceError, RuntimeError):
    """The client is closed, or belongs to another event loop. Nothing was sent."""

    code = "client_unusable"


class CannotSave(ServiceError):
    """The picture cannot be written where it was wanted."""

    code = "cannot_save"


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
    """Turn the errors of httpx into `ServiceError`; none of them repeats a header."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise BadAddress(f"{address!r} is not the address of a server: {error}") from error
    except httpx.LocalProtocolError as error:  # ours, and the same the next time
        raise ServiceError(f"the request to {address} cannot be sent: {error}") from error
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        unsent = isinstance(error, _NEVER_SENT)
        said = f"no ProxyGrad service answers at {address} ({reason})"
        raise ServiceUnreachable(said, unsent=unsent) from error
    except httpx.RequestError as error:
        raise ServiceError(f"the answer of {address} cannot be read: {error}") from error


def refusal(response: httpx.Response, shown: str) -> ServiceError:
    """The error that ``response`` stands for, one that is no success; ``shown``: what was asked of whom."""
    status = response.status_code
    if response.has_redirect_location:
        place = response.headers["location"]
        return ServiceError(f"{shown} answered {status} and leads to {place}; ask there instead", status)
    problem = _problem(response)
    if problem is None:
        said = f"{shown} answered {status} {response.reason_phrase}".rstrip()
        return ServiceError(said, status, retry_after_s(response.headers))
    kind = _BY_STATUS.get(status, Refused)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        kind = RateLimited if problem.code == "rate_limited" else QueueFull
    return kind(problem, retry_after_s(response.headers))


def unreadable(shown: str, status: int) -> ServiceError:
    """What answers at the address is something else, or of another version."""
    said = f"{shown} does not answer as a ProxyGrad service of this version does"
    return ServiceError(said, status)


def _problem(response: httpx.Response) -> ProblemDetails | None:
    """The problem document; with a code that is newer than this client too. None where there is none."""
    try:
        return ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        pass
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not {"code", "detail"} <= {
        name for name, value in found.items() if isinstance(value, str)
    }:
        return None
    known = {"type": "about:blank", "title": found["code"], "errors": [], "state": None}
    return ProblemDetails.model_construct(**{**known, **found, "status": response.status_code})


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
