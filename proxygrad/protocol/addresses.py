"""Where the service is: its default address, and the paths of its resources."""

from __future__ import annotations

from ipaddress import ip_address

#: Where `proxygrad serve` listens, and where clients look for it.
DEFAULT_URL = "http://127.0.0.1:8000"

VISUALIZATIONS = "/v1/visualizations"
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
