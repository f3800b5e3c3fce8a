"""ProxyGrad: see what a unit of a network responds to.

Public names are imported on first use, so that ``import proxygrad`` stays light and the parts without
torch (`proxygrad.spec`, `proxygrad.errors`) can be used where torch is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from proxygrad.version import __version__

if TYPE_CHECKING:
    from proxygrad.delivery import Rendering
    from proxygrad.engine import Engine, Ticket
    from proxygrad.models.catalogue import Catalogue
    from proxygrad.network import Network
    from proxygrad.objectives import Channel, Logit, Neuron
    from proxygrad.spec import Result, Spec
    from proxygrad.surrogate import surrogate

_HOMES = {
    "Catalogue": "models.catalogue",
    "Channel": "objectives",
    "Engine": "engine",
    "Logit": "objectives",
    "Network": "network",
    "Neuron": "objectives",
    "Rendering": "delivery",
    "Result": "spec",
    "Spec": "spec",
    "Ticket": "engine",
    "surrogate": "surrogate",
}

__all__ = [
    "Catalogue",
    "Channel",
    "Engine",
    "Logit",
    "Network",
    "Neuron",
    "Rendering",
    "Result",
    "Spec",
    "Ticket",
    "__version__",
    "surrogate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
