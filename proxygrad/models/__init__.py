"""Models by name: `models.toml`, builders, weights files and the bundled digits network.

May import `networks` and everything below it, never `engine`. Read `catalogue` first. `Catalogue` is imported
on first use: it needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxygrad.models.catalogue import Catalogue

__all__ = ["Catalogue"]


def __getattr__(name: str) -> Any:
    if name == "Catalogue":
        from proxygrad.models.catalogue import Catalogue

        return Catalogue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
