"""One call of the interface, and how often it is made: what is safe to repeat is, for a while.

A call may be repeated when doing it twice is doing it once: reading, canceling, deleting, and asking, since
the same question has the same id and is computed once. Otherwise only where nothing can have been done: the
request was never sent, or was refused for now.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from service.client.errors import NotFound, ServiceError, ServiceUnreachable

logger = logging.getLogger("service.client")

#: The first pause; each one after it is twice as long, up to the second number.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
#: So much of a pause is drawn by chance, lest those who were refused together come back together.
JITTER = 0.5
#: What proxies answer for a server that is not there.
_PROXY_STATUS = frozenset({502, 504})


@dataclass(frozen=True)
class Call:
    """What is sent. ``repeatable``: doing it twice is doing it once.

    ``wait_s``: how long it asks the service to wait; ``silence_s``: how long a stream may be silent;
    ``within_s``: no pause leads beyond so many seconds from now. ``patient``: it belongs to a wait, which a
    restart of the service shall not end, so that the time alone bounds how often it is repeated.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    wait_s: float = 0.0
    silence_s: float | None = None
    within_s: float = math.inf
    patient: bool = False

    def request(self, http: httpx.Client | httpx.AsyncClient, timeout_s: float) -> httpx.Request:
        """The request, with time for the wait that it asks for."""
        read_s = timeout_s + self.wait_s if self.silence_s is None else self.silence_s
        timeout = httpx.Timeout(timeout_s, read=read_s, pool=None)  # many may wait for one connection
        return http.build_request(
            self.method,
            self.path,
            params={name: value for name, value in self.params.items() if value is not None},
            json=self.json,
            headers=dict(self.headers),
            timeout=timeout,
        )


@dataclass(frozen=True)
class Patience:
    """How long a call is tried: ``retries`` more times, and within ``for_s`` seconds from the first.

    A patient call: for ``for_s`` seconds from its first failure, however often; with no ``retries`` once.
    """

    retries: int = 4
    for_s: float = 60.0
    chance: Callable[[], float] = random.random

    def pause_s(
        self, call: Call, error: ServiceError, tries: int, spent_s: float, sound_s: float = 0.0
    ) -> float | None:
        """How long to wait before trying again after ``tries`` tries; None: not any more.

        ``spent_s``: since the call began; ``sound_s``: of those, the ones before anything failed.
        """
        if not self._goes_on(call, tries) or not _may_repeat(call, error):
            return None
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(tries - 1, 99), LONGEST_PAUSE_S) * (
            1 - JITTER * self.chance()
        )
        if error.retry_after_s is not None:
            pause_s += error.retry_after_s
        most_s = min(self.for_s + (sound_s if call.patient else 0.0), call.within_s)
        return pause_s if spent_s + pause_s <= most_s else None

    def _goes_on(self, call: Call, tries: int) -> bool:
        return self.retries > 0 if call.patient else tries <= self.retries


def _may_repeat(call: Call, error: ServiceError) -> bool:
    if isinstance(error, ServiceUnreachable):
        return call.repeatable or error.unsent
    if error.status == httpx.codes.TOO_MANY_REQUESTS:
        return True
    if error.status == httpx.codes.SERVICE_UNAVAILABLE:
        # The service says when trying again may help; where it does not, as of a damaged model, it does not.
        return error.retry_after_s is not None or (call.repeatable and type(error) is ServiceError)
    return call.repeatable and error.status in _PROXY_STATUS


def note(error: ServiceError, pause_s: float) -> None:
    """Tell the log why there is a pause; at INFO, as it may well come right."""
    logger.info("%s; trying again in %.1f s", error, pause_s)


def was_gone(call: Call, error: ServiceError, tries: int) -> bool:
    """Whether a deletion that was repeated finds that the first one had been done."""
    return call.method == "DELETE" and tries > 1 and isinstance(error, NotFound)
