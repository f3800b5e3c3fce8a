"""One attempt to deliver: to an address that was checked, without redirects, with bounds on time and size.

The host's name is resolved where the connection is made, every address that it has is checked, and the
connection goes to one of these: there is no second resolution that could say otherwise. TLS and the `Host`
header keep the name. No proxy is used, whatever the environment says: it would resolve the name itself.
"""

from __future__ import annotations

import asyncio
import email.utils
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from proxygrad.version import __version__
from service.addresses import Network, may_reach
from service.webhooks.urls import Endpoint

#: Longest attempt, and longest part of it, in seconds: Standard Webhooks suggests 15 to 30 in all.
ATTEMPT_S, STEP_S = 20.0, 10.0
#: Addresses of one host that are tried.
_MOST_TRIED = 4

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class AddressRefused(Exception):
    """A name leads to an address that may not be reached."""


@dataclass(frozen=True)
class DeliveryOutcome:
    """The outcome of an attempt: a status or an error; ``retry_after_s`` as the receiver sent it."""

    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of ``host``, as this machine finds them. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class _Checked(httpcore.AsyncNetworkBackend):
    """Connections to addresses that were checked."""

    def __init__(self, private: Sequence[Network], find: Resolve) -> None:
        self._private = private
        self._find = find
        self._real = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve once, refuse unless every address may be reached, connect to the first that answers."""
        try:
            addresses = await self._find(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the host has no address") from error
        if not addresses or not all(may_reach(address, self._private) for address in addresses):
            raise AddressRefused(host)
        failure: Exception = httpcore.ConnectError("no address answers")
        for address in addresses[:_MOST_TRIED]:
            try:
                return await self._real.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        """Refuse: webhooks go to hosts alone."""
        raise AddressRefused("a unix socket")

    async def sleep(self, seconds: float) -> None:
        """Sleep, as the backend of httpcore does."""
        await self._real.sleep(seconds)


class Sender:
    """Makes attempts, on the event loop that it is first used on.

    ``private``: networks that may be reached though they are not public. ``find``: how names are resolved.
    """

    def __init__(
        self,
        private: Sequence[Network] = (),
        *,
        find: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        attempt_s: float = ATTEMPT_S,
    ) -> None:
        self._attempt_s = attempt_s
        # No connection is reused: each attempt resolves and checks the address anew.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_Checked(private, find),
        )

    async def post(self, place: Endpoint, headers: Mapping[str, str], body: bytes) -> DeliveryOutcome:
        """One attempt; never raises for what the receiver or the network does."""
        try:
            async with asyncio.timeout(self._attempt_s):
                return await self._post(place, headers, body)
        except AddressRefused:
            return DeliveryOutcome(error="the host leads to an address that is not public")
        except (TimeoutError, httpcore.TimeoutException):
            return DeliveryOutcome(error=f"no answer within {self._attempt_s:g} s")
        except httpcore.ConnectError as error:
            return DeliveryOutcome(error=f"no connection: {_said(error)}")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return DeliveryOutcome(error=f"the connection broke: {_said(error)}")

    async def aclose(self) -> None:
        """Close what is open."""
        await self._pool.aclose()

    async def _post(self, place: Endpoint, headers: Mapping[str, str], body: bytes) -> DeliveryOutcome:
        url = httpcore.URL(
            scheme=place.scheme.encode(),
            host=place.host.encode(),
            port=place.port,
            target=place.target.encode(),
        )
        all_headers = {
            "Host": place.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": f"proxygrad-service/{__version__}",
            "Connection": "close",
            **headers,
        }
        step = dict.fromkeys(("connect", "read", "write", "pool"), STEP_S)
        async with self._pool.stream(
            "POST", url, headers=list(all_headers.items()), content=body, extensions={"timeout": step}
        ) as response:
            # What else it says does not matter, nor whether that ever comes.
            return DeliveryOutcome(response.status, retry_after_s=_retry_after_s(response.headers))


def _retry_after_s(headers: Sequence[tuple[bytes, bytes]]) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3), which counts from the receiver's own `Date`."""
    text, date = (_header(headers, name) for name in (b"retry-after", b"date"))
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        now_s = time.time() if date is None else email.utils.parsedate_to_datetime(date).timestamp()
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def _header(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == wanted), None)


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:160]
