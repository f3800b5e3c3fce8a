"""What a worker process has at hand when a job comes, and what the engine and the models must offer to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import redis

from proxygrad.spec import Result, Spec
from workers.execution.drain import Drain
from workers.fleet.catalog import CatalogEntry, ServedModel
from workers.jobs.kinds.registry import capabilities
from workers.jobs.repository import Jobs
from workers.queue.leases import Leases
from workers.storage.pins import ArtifactPins
from workers.storage.store import Store

T = TypeVar("T")

#: How long the engine may go without finishing anything while it has work.
STALL_S = 60.0


class ProgressProtocol(Protocol):
    """Steps done and the activation at that step; None before the first."""

    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def activation(self) -> float | None: ...  # noqa: D102


class RenderingProtocol(Protocol):
    """Finished images, a PNG for each of `Result.images`, and what is known about them."""

    @property
    def images(self) -> Sequence[bytes]: ...  # noqa: D102
    @property
    def result(self) -> Result: ...  # noqa: D102


class LaneStateProtocol(Protocol):
    """The state of images under way after ``step`` steps, for `EngineProtocol.submit` to go on from."""

    @property
    def step(self) -> int: ...  # noqa: D102
    def to_bytes(self) -> bytes: ...  # noqa: D102


class FutureProtocol(Protocol):
    """The images of one question under way. Any thread may use it."""

    @property
    def progress(self) -> ProgressProtocol: ...  # noqa: D102
    @property
    def remaining_s(self) -> float | None: ...  # noqa: D102
    def wait(self, timeout_s: float) -> bool: ...  # noqa: D102
    def cancel(self) -> None: ...  # noqa: D102
    def extend_deadline(self, seconds_from_now: float | None) -> None: ...  # noqa: D102
    def preview(self) -> bytes | None: ...  # noqa: D102
    def checkpoint(self, timeout_s: float) -> LaneStateProtocol | None: ...  # noqa: D102
    def result(self) -> RenderingProtocol: ...  # noqa: D102


class EngineProtocol(Protocol):
    """Computes images; any thread may submit. `proxygrad.engine.engine.Engine` is one."""

    @property
    def stalled_s(self) -> float: ...  # noqa: D102
    def submit(  # noqa: D102
        self, network: Any, spec: Spec, *, deadline_s: float | None = None, checkpoint: bytes | None = None
    ) -> FutureProtocol: ...
    def call(self, function: Callable[[], T]) -> Future[T]: ...  # noqa: D102


class Models(Protocol):
    """Networks by name, in the engine's own form; ``served`` changes. `workers.models.model_cache.ModelCache`
    is one.
    """

    @property
    def served(self) -> Sequence[ServedModel]: ...  # noqa: D102
    def lent(self, name: str) -> AbstractContextManager[Any]: ...  # noqa: D102


@dataclass(frozen=True)
class WorkerContext:
    """One worker process: its name, its parts, and how it ends.

    ``batches_told``: set when a batch may go on (`workers.batches.expander`).
    """

    worker: str
    redis: redis.Redis
    store: Store
    engine: EngineProtocol
    models: Models
    drain: Drain = field(default_factory=Drain)
    stall_s: float = STALL_S
    batches_told: threading.Event = field(default_factory=threading.Event)

    @property
    def stopping(self) -> threading.Event:
        """Set once nothing new is to be begun."""
        return self.drain.begun

    @cached_property
    def catalog_entry(self) -> CatalogEntry:
        """What this worker publishes of itself."""
        return CatalogEntry(self.redis, self.worker, lambda: self.models.served, capabilities)

    @cached_property
    def jobs(self) -> Jobs:
        """The jobs' records."""
        return Jobs(self.redis, self.store)

    @cached_property
    def leases(self) -> Leases:
        """The jobs' leases."""
        return Leases(self.redis)

    @cached_property
    def pins(self) -> ArtifactPins:
        """The pins and deletion locks of artifacts."""
        return ArtifactPins(self.redis)

    def now(self) -> float:
        """Seconds since 1970 on Redis' clock, which all records use."""
        seconds, micros = self.redis.time()
        return seconds + micros / 1e6
