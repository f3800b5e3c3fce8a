"""Where the service is: its default address, and the paths of its resources."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

#: Where `proxygrad serve` listens, and where clients look for it.
DEFAULT_URL = "http://127.0.0.1:8000"

VISUALIZATIONS = "/v1/visualizations"
ATTRIBUTIONS = "/v1/attributions"
BATCHES = "/v1/batches"
MODELS = "/v1/models"
DELIVERIES = "/v1/webhooks/deliveries"
CALLERS = "/v1/callers"


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine alone, where keys need no encryption.

    Of names, only `localhost` is known to be.
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


#: Shown where a secret stands, or may.
HIDDEN = "***"
#: Schemes of places on this machine, whose URLs need no host.
_LOCAL_SCHEMES = frozenset({"unix", "file", "memory"})
#: Parameters of a URL that are no secrets.
_HARMLESS = frozenset({"db"})


def without_secrets(url: str) -> str:
    """A URL as it may be shown and logged: user, host and path, and `HIDDEN` for all that may be a secret.

    Also of a URL that nothing can read, for example since its password has a slash that is not encoded.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url if url and not {"@", "?", "#"} & set(url) else HIDDEN
    # A password may have any of "/?#@", encoded or not: everything before the last @ is none of the place.
    userinfo, at, place = rest.rpartition("@")
    unreadable = f"{scheme}://{HIDDEN}"
    if "?" in userinfo:  # or the @ is one of a parameter
        return unreadable
    try:
        parts = urlsplit(f"{scheme}://{place}")
        if not (parts.hostname or scheme in _LOCAL_SCHEMES) or (parts.port is not None and parts.port < 0):
            return unreadable
    except ValueError:  # what should be the port is none
        return unreadable
    user, colon, _ = userinfo.partition(":")
    named = user if colon and "/" not in user else ""
    who = f"{named}{':' if colon else ''}{HIDDEN}@" if at else ""
    return f"{scheme}://{who}{parts.netloc}{parts.path}{_query(parts.query)}"


def _query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    shown = [
        f"{name}={value if name in _HARMLESS else HIDDEN}" if equals else HIDDEN
        for name, equals, value in pairs
    ]
    return "?" + "&".join(shown) if shown else ""
