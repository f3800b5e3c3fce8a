"""API calls, and the policy by which failed ones are repeated.

A call is repeatable if doing it twice has the effect of doing it once: reads, cancellations, deletions, and
submissions, since requests for the same spec share one job. Any other call is repeated only if it certainly
had no effect: it was never sent, or it was refused for now.
"""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from proxygrad.client.errors import InvalidArgument, NotFound, ServiceError, ServiceUnreachable

logger = logging.getLogger("proxygrad.client")

#: The first pause; each further one is twice as long, up to the second number.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
#: The part of a pause that is random, so that clients refused together do not come back together.
JITTER = 0.5
#: Statuses of proxies whose server is down.
_PROXY_STATUS = frozenset({502, 504})


@dataclass(frozen=True)
class Upload:
    """A form with a JSON document, as the part ``name``, and files, each with the name of its part."""

    files: tuple[tuple[str, bytes], ...]
    name: str
    document: Mapping[str, Any]

    @property
    def fields(self) -> dict[str, str]:
        """The part that is no file."""
        return {self.name: json.dumps(self.document)}


@dataclass(frozen=True)
class ApiCall:
    """One call of the HTTP API. ``repeatable``: doing it twice has the effect of doing it once.

    ``wait_s``: the wait that it asks the service for. ``silence_s``: how long a stream may be silent.
    ``within_s``: no pause ends later than so many seconds from now. ``patient``: part of a wait, which must
    survive a restart of the service: only time limits its repetitions.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    upload: Upload | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    wait_s: float = 0.0
    silence_s: float | None = None
    within_s: float = math.inf
    patient: bool = False

    def request(self, http: httpx.Client | httpx.AsyncClient, timeout_s: float) -> httpx.Request:
        """The HTTP request, whose read timeout includes the wait."""
        read_s = timeout_s + self.wait_s if self.silence_s is None else self.silence_s
        timeout = httpx.Timeout(timeout_s, read=read_s, pool=None)  # many calls may wait for one connection
        return http.build_request(
            self.method,
            self.path,
            params={name: value for name, value in self.params.items() if value is not None},
            json=self.json,
            files=None if self.upload is None else list(self.upload.files),
            data=None if self.upload is None else self.upload.fields,
            headers=dict(self.headers),
            timeout=timeout,
        )


@dataclass(frozen=True)
class RetryPolicy:
    """How long a call is tried: ``retries`` more times, within ``for_s`` seconds of the first.

    A patient call: any number of times, for ``for_s`` seconds from its first failure; once without retries.
    """

    retries: int = 4
    for_s: float = 60.0
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise InvalidArgument(f"retries={self.retries!r}; valid: 0 or more")
        if math.isnan(self.for_s) or self.for_s < 0:
            raise InvalidArgument(f"retry_for_s={self.for_s!r}; valid: 0 seconds or more")

    def pause_s(
        self, call: ApiCall, error: ServiceError, tries: int, elapsed_s: float, healthy_s: float = 0.0
    ) -> float | None:
        """Seconds to pause before another try after ``tries`` tries; None: give up.

        ``elapsed_s``: since the call began; ``healthy_s``: of those, the ones before the first failure.
        """
        if not self._tries_left(call, tries) or not _may_repeat(call, error):
            return None
        pause_s = self.jittered(min(FIRST_PAUSE_S * 2.0 ** min(tries - 1, 99), LONGEST_PAUSE_S))
        if error.retry_after_s is not None:
            pause_s += error.retry_after_s
        limit_s = min(self.for_s + (healthy_s if call.patient else 0.0), call.within_s)
        return pause_s if elapsed_s + pause_s <= limit_s else None

    def jittered(self, pause_s: float) -> float:
        """The pause, less a random part."""
        return pause_s * (1 - JITTER * self.chance())

    def _tries_left(self, call: ApiCall, tries: int) -> bool:
        return self.retries > 0 if call.patient else tries <= self.retries


def _may_repeat(call: ApiCall, error: ServiceError) -> bool:
    if isinstance(error, ServiceUnreachable):
        return call.repeatable or error.unsent
    if error.status == httpx.codes.TOO_MANY_REQUESTS:
        return True
    if error.status == httpx.codes.SERVICE_UNAVAILABLE:
        # With `Retry-After` it was refused for now. A proxy's 503 has no problem document; a problem without
        # `Retry-After`, such as a damaged model's, will not go away.
        return error.retry_after_s is not None or (call.repeatable and type(error) is ServiceError)
    return call.repeatable and error.status in _PROXY_STATUS


def log_pause(error: ServiceError, pause_s: float) -> None:
    """Log why there is a pause; at INFO, as the next try may well succeed."""
    logger.info("%s; trying again in %.1f s", error, pause_s)


def deleted_before(call: ApiCall, error: ServiceError, tries: int) -> bool:
    """Whether a repeated deletion failed because the first one had succeeded unheard."""
    return call.method == "DELETE" and tries > 1 and isinstance(error, NotFound)
