"""Shelves with small networks on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxygrad.models import Catalog
from proxygrad.protocol.problems import Problem
from proxygrad.spec import ModelInfo
from tests.support.configured_networks import BUILT, WEIGHTS_BYTES, save_weights, table
from workers.models.model_cache import ModelCache

#: What one of the small networks counts for.
ONE = int(2.5 * WEIGHTS_BYTES)
PLENTY = 10**9


def stocked(folder: Path) -> Path:
    """``folder``, with weights for the models a to d; nothing counts as built."""
    for seed, name in enumerate("abcd"):
        save_weights(folder / f"{name}.safetensors", seed)
    BUILT.clear()
    return folder


def opened(folder: Path, names: Sequence[str], budget_bytes: int, builder: str = "small") -> ModelCache:
    """A shelf with these models beside `digits`, which has been asked about once; all with notes."""
    tables = [table(name, builder, f"{name}.safetensors") for name in names]
    (folder / "models.toml").write_text("".join(tables))
    catalog = Catalog.from_file(folder / "models.toml")
    ModelCache.open(catalog, "cpu", PLENTY, folder / "notes")
    BUILT.clear()
    return ModelCache.open(catalog, "cpu", budget_bytes, folder / "notes")


def loaded(shelf: ModelCache) -> set[str]:
    return {name for name in shelf._catalog.names if shelf._places[name].network is not None}


def info(shelf: ModelCache, name: str) -> ModelInfo | None:
    return {model.name: model for model in shelf.served}[name].info


def problem(shelf: ModelCache, name: str) -> Problem | None:
    return {model.name: model for model in shelf.served}[name].problem
