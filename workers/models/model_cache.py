"""The models of one worker process: what each offers, and the network when somebody asks about it.

What a model offers is known from the start, from a note of an earlier one or by loading it. Networks are
loaded when they are wanted, and the one wanted longest ago leaves when memory is short
(`workers.models.memory_budget`).
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from pydantic import JsonValue

from proxygrad.errors import ModelError, UnknownModel
from proxygrad.models import Catalog
from proxygrad.networks.network import Network
from proxygrad.protocol.problems import Problem
from proxygrad.spec import ModelInfo
from workers.fleet.catalog import ServedModel
from workers.models.memory_budget import CacheEntry, MemoryBudget
from workers.models.metadata_cache import MetadataCache, ModelMetadata

#: Between two tries to load a model that could not be loaded.
RETRY_S = 30.0

#: Memory for a model is that of its weights, as much for its working copy in float32, and half of it for one
#: in bfloat16 that steps run on: the most there may be (docs/measurements/speed.md).
_WORKING = 2.5

_log = logging.getLogger(__name__)


class ModelChanged(ModelError):
    """The model is not the one that was published; what it is now has been published instead."""


class ModelCache:
    """Networks by name, for any number of threads. A network itself belongs to the engine's thread."""

    def __init__(self, catalog: Catalog, device: str, budget_bytes: int, notes: MetadataCache) -> None:
        self._catalog = catalog
        self._device = device
        self._notes = notes
        self._places = MemoryBudget(catalog.names, budget_bytes)
        self._infos: dict[str, ModelInfo] = {}
        self._refused: dict[str, dict[str, JsonValue]] = {}  # what the ones that never were ready depended on

    @classmethod
    def open(cls, catalog: Catalog, device: str, budget_bytes: int, notes: Path | None) -> Self:
        """A shelf that knows every model of ``catalog``; one that cannot be loaded keeps no others away.

        ``budget_bytes``: for the weights of all loaded models. ``notes``: a folder for what was found out
        about models, which need not be loaded then at the next start; None: they are.
        """
        shelf = cls(catalog, device, budget_bytes, MetadataCache(notes))
        for name in catalog.names:
            shelf._survey(name)
        return shelf

    @property
    def served(self) -> tuple[ServedModel, ...]:
        """What to publish, as it is now: it changes when a model cannot be loaded any more, or can again."""
        found = []
        for name in self._catalog.names:
            problem = self._places[name].problem
            info = None if problem else self._infos.get(name)
            found.append(ServedModel(name=name, info=info, problem=problem))
        return tuple(found)

    @contextmanager
    def lent(self, name: str) -> Iterator[Network]:
        """The network of that name, loaded if it is not there; it stays until the block ends.

        Raises `UnknownModel`, or `ModelError` with what is wrong with it.
        """
        if name not in self._catalog.names:
            raise UnknownModel(name, self._catalog.names)
        place = self._places[name]
        self._places.use(place)
        try:
            with place.loading:
                network = place.network or self._load(place)
            yield network
        finally:
            self._places.leave(place)

    def network(self, name: str) -> Network:
        """As `lent`, for a moment: it lives as long as it is referred to, but may leave the shelf."""
        with self.lent(name) as network:
            return network

    def recover(self) -> None:
        """Try again what could not be loaded; to be called every `RETRY_S`.

        A model that never was ready is tried when its files have changed. Questions about a model with a
        problem are refused at the gateway, so that no job would try it.
        """
        for name in self._catalog.names:
            place = self._places[name]
            if place.problem is None:
                continue
            if name not in self._infos and self._refused.get(name) == self._catalog.fingerprint(name):
                continue
            place.tried_s = -math.inf
            self._survey(name)

    def _survey(self, name: str) -> None:
        """Find out what a model offers: from its note, or by loading it."""
        place, fingerprint = self._places[name], self._catalog.fingerprint(name)
        note = self._notes.read(name, fingerprint)
        if note is not None and place.problem is None:
            self._infos[name], place.size_bytes = note.info, note.size_bytes
            _tell(note.info)
            return
        self._refused[name] = fingerprint
        try:
            with self.lent(name) as network:
                if self._catalog.has_weights(name):
                    return
                # Its builder alone decides on the weights, and may draw others each time.
                place.stays = self._catalog.load(name, self._device).info.digest != network.info.digest
        except ModelChanged:
            _log.info("model %s is served as its files are now", name)
        except ModelError as error:
            _log.warning("model %s is not served: %s", name, error)
        else:
            if not place.stays:
                self._note(place, fingerprint)

    def _load(self, place: CacheEntry) -> Network:
        """With ``place.loading`` held: put the network there. Raises `ModelError`."""
        if place.problem is not None and time.monotonic() < place.tried_s + RETRY_S:
            raise ModelError(place.problem.detail)
        fingerprint = self._catalog.fingerprint(place.name)
        self._places.expect(place)
        try:
            network = self._built(place.name)
            known, info = self._infos.get(place.name), network.info
        except Exception as error:
            self._places.put(place, None, place.size_bytes)
            raise _told(place, error) from error
        self._infos[place.name] = info
        self._places.put(place, network, _size_bytes(network))
        _log.info("model %s: %d layers, %.1f MB", place.name, len(info.layers), place.size_bytes / 1e6)
        _tell(info)
        if info != known and self._catalog.has_weights(place.name):
            self._note(place, fingerprint)
        if known is not None and info != known:
            raise ModelChanged(f"the files of model {place.name!r} have changed; ask the question again")
        return network

    def _note(self, place: CacheEntry, fingerprint: dict[str, JsonValue]) -> None:
        info, size_bytes = self._infos[place.name], place.size_bytes
        self._notes.write(
            place.name, ModelMetadata(fingerprint=fingerprint, info=info, size_bytes=size_bytes)
        )

    def _built(self, name: str) -> Network:
        try:
            return self._catalog.load(name, self._device)
        except (MemoryError, torch.OutOfMemoryError):
            _log.warning("no memory for model %s beside the others; it is tried without the idle ones", name)
        self._places.clear()
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
        return self._catalog.load(name, self._device)


def _tell(info: ModelInfo) -> None:
    """What its operator should know of a model."""
    for note in info.notes:
        _log.warning("model %s: %s", info.name, note)


def _size_bytes(network: Network) -> int:
    modules = [network.module, *([network.discriminator] if network.discriminator else [])]
    tensors = [each for module in modules for each in (*module.parameters(), *module.buffers())]
    return int(_WORKING * sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def _told(place: CacheEntry, error: Exception) -> ModelError:
    """What keeps a model from being loaded, noted at its place."""
    if not isinstance(error, ModelError):
        _log.error("model %s cannot be loaded", place.name, exc_info=error)
        error = ModelError(f"{type(error).__name__}: {error}")
    place.tried_s = time.monotonic()
    place.problem = Problem(code=error.code, detail=str(error))
    return error
