"""Links to this service: paths as its callers see them, behind the prefix that a proxy puts before them."""

from __future__ import annotations

from contextvars import ContextVar

#: Scheme and host of the service, empty where they are not known, and the prefix of its paths: `/proxygrad`.
origin: ContextVar[str] = ContextVar("origin", default="")
prefix: ContextVar[str] = ContextVar("prefix", default="")


def link(path: str) -> str:
    """The path of a resource as the caller of this request sees it: it resolves it against its own URL."""
    return prefix.get() + path


def server() -> str:
    """The URL of the service: whole where it is known, else what to resolve against that of the request."""
    return origin.get() + prefix.get()
