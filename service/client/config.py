"""Where a client asks, and with which key: what is given, else what the environment says."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from proxygrad.protocol.addresses import is_loopback
from service.client.errors import BadAddress
from workers.errors import SettingsError

DEFAULT_URL = "http://127.0.0.1:8000"

#: Seconds that one request may take at most: a day.
MOST_TIMEOUT_S = 86_400.0

_HOST = re.compile(rb"[\w.-]+|[0-9a-fA-F.]*:[0-9a-fA-F:.]+(%[\w.-]+)?")
_KEY = re.compile(r"[\x21-\x7e]+")


class InsecureKeyWarning(UserWarning):
    """A key is about to be sent in clear to another machine."""


@dataclass(frozen=True)
class Account:
    """A server, and who one is there. The key is no part of what is shown of it."""

    url: httpx.URL
    key: str | None = field(repr=False)

    @classmethod
    def of(cls, base_url: str | None, key: str | None, environ: Mapping[str, str]) -> Account:
        """From what is given, else `PROXYGRAD_URL` and `PROXYGRAD_API_KEY`; an empty one counts as not set.

        Raises `BadAddress`, and `SettingsError` for what can be no key, without repeating it.
        Warns with `InsecureKeyWarning` where the key would cross a network unencrypted.
        """
        url = _url(base_url or environ.get("PROXYGRAD_URL") or DEFAULT_URL)
        account = cls(url, _key(environ.get("PROXYGRAD_API_KEY") if key is None else key))
        if account.key is not None and url.userinfo:
            raise BadAddress(
                f"{account.address} was given with a user, and with an API key: only one of them can be sent"
            )
        if account.key is not None and url.scheme == "http" and not account.local:
            warnings.warn(
                f"the API key is sent unencrypted to {url.host}: whoever is on the way can read and use it; "
                "give an https:// address, or reach the service through a tunnel",
                InsecureKeyWarning,
                stacklevel=3,
            )
        return account

    @property
    def address(self) -> str:
        """The address as it may be shown: without user and password."""
        return str(self.url.copy_with(userinfo=b"")).rstrip("/")

    @property
    def local(self) -> bool:
        """Whether the server is on this machine, where no proxy leads to it and nobody listens in."""
        return is_loopback(self.url.host)

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with each request."""
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.strip().rstrip("/"))
    except httpx.InvalidURL as error:
        raise BadAddress(f"{text!r} is not the address of a server: {error}") from error
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(url.raw_host) or (url.port or 0) > 65535:
        raise BadAddress(f"{text!r} is not the address of a server; valid: http://host:port or https://host")
    if "?" in text or "#" in text:
        shown = str(url.copy_with(userinfo=b""))
        raise BadAddress(f"{shown!r} is not the address of a server: it has a query or a fragment")
    return url


def check_times(timeout_s: float, retries: int, retry_for_s: float) -> None:
    """Raises `SettingsError` for what no request could be made with."""
    if not 0 < timeout_s <= MOST_TIMEOUT_S:
        raise SettingsError(
            f"timeout_s={timeout_s!r}; valid: more than 0, at most {MOST_TIMEOUT_S:g} seconds"
        )
    if retries < 0:
        raise SettingsError(f"retries={retries!r}; valid: 0 or more")
    if math.isnan(retry_for_s) or retry_for_s < 0:
        raise SettingsError(f"retry_for_s={retry_for_s!r}; valid: 0 seconds or more")


def _key(text: str | None) -> str | None:
    text = (text or "").strip()
    if text and not _KEY.fullmatch(text):
        # What httpx would say of it repeats the header.
        raise SettingsError("the API key has characters that no key has; valid: one word, pg_…")
    return text or None
