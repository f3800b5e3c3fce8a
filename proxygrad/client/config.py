"""Configuration of a client: the service's address, the API key, timeouts and retries."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import httpx

from proxygrad.client.errors import BadAddress, InvalidArgument
from proxygrad.client.retries import RetryPolicy
from proxygrad.protocol.addresses import DEFAULT_URL, is_loopback, without_secrets
from proxygrad.version import __version__

#: A day.
MAX_TIMEOUT_S = 86_400.0

_HOST = re.compile(rb"[\w.-]+|[0-9a-fA-F.]*:[0-9a-fA-F:.]+(%[\w.-]+)?")
_KEY = re.compile(r"[\x21-\x7e]+")


class InsecureKeyWarning(UserWarning):
    """An API key is about to be sent unencrypted to another machine."""


@dataclass(frozen=True)
class ClientConfig:
    """A server, the key for it, and how long to try. The key is not in the repr.

    ``timeout_s``: for one request, beyond the wait that it asks the service for.
    """

    url: httpx.URL
    key: str | None = field(repr=False)
    timeout_s: float
    retry_policy: RetryPolicy

    @classmethod
    def of(
        cls,
        base_url: str | None,
        key: str | None,
        environ: Mapping[str, str],
        *,
        timeout_s: float = 15.0,
        retries: int = 4,
        retry_for_s: float = 60.0,
    ) -> Self:
        """The arguments, else `PROXYGRAD_URL` and `PROXYGRAD_API_KEY`; empty ones count as not set.

        Raises `BadAddress`, and `InvalidArgument` for an impossible key, without repeating it, or time.
        Warns with `InsecureKeyWarning` if the key would cross a network unencrypted.
        """
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise InvalidArgument(
                f"timeout_s={timeout_s!r}; valid: more than 0, at most {MAX_TIMEOUT_S:g} seconds"
            )
        config = cls(
            _url(base_url or environ.get("PROXYGRAD_URL") or DEFAULT_URL),
            _key(environ.get("PROXYGRAD_API_KEY") if key is None else key),
            timeout_s,
            RetryPolicy(retries, retry_for_s),
        )
        if config.key is not None and config.url.userinfo:
            raise BadAddress(
                f"{config.address} was given with a user, and with an API key: only one of them can be sent"
            )
        if config.key is not None and config.url.scheme == "http" and not config.local:
            warnings.warn(
                f"the API key is sent unencrypted to {config.url.host}: anyone on the way can read and use "
                "it; use an https:// address, or a tunnel",
                InsecureKeyWarning,
                stacklevel=3,
            )
        return config

    @property
    def address(self) -> str:
        """The URL as messages may show it: without user and password."""
        return str(self.url.copy_with(userinfo=b"")).rstrip("/")

    @property
    def local(self) -> bool:
        """Whether the server is on this machine: no proxy leads there, and no network is crossed."""
        return is_loopback(self.url.host)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        agent = {"User-Agent": f"proxygrad-client/{__version__}"}
        return agent if self.key is None else {**agent, "Authorization": f"Bearer {self.key}"}


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.strip().rstrip("/"))
    except httpx.InvalidURL as error:
        raise BadAddress(f"{without_secrets(text)!r} is not the address of a server: {error}") from error
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(url.raw_host) or (url.port or 0) > 65535:
        raise BadAddress(
            f"{without_secrets(text)!r} is not the address of a server; valid: http://host:port or https://host"
        )
    if "?" in text or "#" in text:
        shown = without_secrets(str(url))
        raise BadAddress(f"{shown!r} is not the address of a server: it has a query or a fragment")
    return url


def _key(text: str | None) -> str | None:
    text = (text or "").strip()
    if text and not _KEY.fullmatch(text):
        # httpx's own message would repeat the header.
        raise InvalidArgument("the API key has characters that no key has; valid: one word, pg_…")
    return text or None
