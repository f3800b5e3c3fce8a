"""Models by name: `models.toml`, builders, weights files and the bundled digits network.

May import `networks` and everything below it, never `engine`. Read `catalog` first. `Catalog` is imported
on first use: it needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxygrad.models.catalog import Catalog

__all__ = ["Catalog"]


def __getattr__(name: str) -> Any:
    if name == "Catalog":
        from proxygrad.models.catalog import Catalog

        return Catalog
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
