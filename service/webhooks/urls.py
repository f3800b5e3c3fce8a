"""Webhook URLs: parsed once, and checked against the hosts that the operator has allowed.

Events are sent to the parsed parts (`service.webhooks.sender`): no second parser can find another host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from proxygrad.protocol.problems import FieldError
from proxygrad.protocol.requests import MAX_URL_LENGTH
from service.problems import ProblemError

_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_URL = re.compile(r"(https?)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)
_PLACE = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
#: Printable ASCII without what no URL may have unescaped (RFC 3986).
_PLAIN = re.compile(r"[!#-;=?-\[\]_a-z~]*")
_PORTS = {"http": 80, "https": 443}
MAX_NAME = 253


class BadURL(ValueError):
    """Not a valid webhook URL; says why."""


@dataclass(frozen=True)
class Endpoint:
    """The endpoint of a URL: ``host`` in lower case, an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int
    target: str = "/"

    @property
    def netloc(self) -> str:
        """Host, and the port where it is not that of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"

    @classmethod
    def of(cls, url: str) -> Self:
        """The parts of ``url``. Raises `BadURL`."""
        if len(url) > MAX_URL_LENGTH:
            raise BadURL(f"it has {len(url)} characters, and at most {MAX_URL_LENGTH} may be")
        if not url.isascii():
            raise BadURL("it has characters beyond ASCII: write names as `xn--…`, and the rest as `%…`")
        if not _PLAIN.fullmatch(url.lower()):
            raise BadURL("it has a character that no URL may have: a space, a quote, a backslash, …")
        found = _URL.fullmatch(url)
        if found is None:
            raise BadURL("it is no URL of the form https://host/path")
        scheme, place, path, query, fragment = found.groups()
        if "@" in place:
            raise BadURL("it names a user or a password; say who you are in the path or the query")
        if fragment is not None:
            raise BadURL("it has a fragment (`#…`), which is never sent")
        return cls(scheme.lower(), *_host_and_port(place, scheme.lower()), f"{path or '/'}{query or ''}")


def _host_and_port(place: str, scheme: str) -> tuple[str, int]:
    found = _PLACE.fullmatch(place.lower())
    if found is None:
        raise BadURL(f"{place!r} is no host, or host:port")
    port = int(found[2]) if found[2] else _PORTS[scheme]
    if not 1 <= port <= 65535:
        raise BadURL(f"port {port} does not exist; valid: 1 to 65535")
    return _host(found[1]), port


def _host(text: str) -> str:
    """A name, or an address in its one canonical form: no `2130706433`, `0x7f.1` or `127.1`."""
    try:
        if text.startswith("["):
            return str(IPv6Address(text[1:-1]))
        if re.fullmatch(r"[0-9.]+", text):
            return str(IPv4Address(text))
    except ValueError:
        raise BadURL(f"{text!r} is no address") from None
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise BadURL(f"{text!r} is no host name; it ends without a dot")
    if re.fullmatch("[0-9]+|0x[0-9a-f]*", text.rpartition(".")[2]):
        raise BadURL(f"{text!r} is an address in a form that is not taken; write it as a.b.c.d")
    return text


@dataclass(frozen=True)
class HostRule:
    """One allowed host, or all names below one."""

    text: str
    place: Endpoint
    below: bool

    @classmethod
    def of(cls, text: str) -> Self:
        """``[http://|https://][*.]host[:port]``; https where it does not say. Raises `BadURL`."""
        scheme, _, rest = text.rpartition("://")
        host = rest.removeprefix("*.")
        place = Endpoint.of(f"{scheme or 'https'}://{host}")
        if place.target != "/" or re.search("[/?]", host):
            raise BadURL("it has a path; hosts are allowed as a whole")
        if host != rest and not re.search("[a-z]", place.host.rpartition(".")[2]):
            raise BadURL("addresses have nothing below them")
        return cls(text, place, host != rest)

    def holds(self, place: Endpoint) -> bool:
        """Whether it allows that endpoint."""
        if (self.place.scheme, self.place.port) != (place.scheme, place.port):
            return False
        return place.host.endswith(f".{self.place.host}") if self.below else place.host == self.place.host


class AllowedHosts:
    """The hosts that the operator allows."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """Raises `BadURL`, which names the entry."""
        self.entries: list[HostRule] = []
        for text in hosts:
            try:
                self.entries.append(HostRule.of(text))
            except BadURL as error:
                raise BadURL(f"{text!r}: {error}") from error

    def place(self, url: str) -> Endpoint:
        """The endpoint of ``url``. Raises `BadURL` for an invalid URL, or a host that is not allowed."""
        place = Endpoint.of(url)
        if not any(entry.holds(place) for entry in self.entries):
            raise BadURL(f"{place.scheme}://{place.netloc} is not an allowed host")
        return place

    def check(self, url: str | None) -> str | None:
        """``url`` in canonical form. Raises `webhook_refused`, with the allowed hosts."""
        if url is None:
            return None
        if not self.entries:
            raise _refused(url, "this server sends no webhooks: its operator allows no host", [])
        try:
            return str(self.place(url))
        except BadURL as error:
            raise _refused(url, str(error), [entry.text for entry in self.entries]) from error


def _refused(url: str, why: str, choices: list[str]) -> ProblemError:
    shown = url if len(url) <= 200 else f"{url[:200]}…"
    valid = f"; valid hosts: {', '.join(choices)}" if choices else " (PROXYGRAD_WEBHOOK_HOSTS)"
    field_error = FieldError(location=["body", "webhook"], detail=why, value=shown, choices=choices or None)
    return ProblemError("webhook_refused", f"webhook {shown!r}: {why}{valid}", [field_error])
