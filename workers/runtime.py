"""What a worker process has at hand when a job comes, and what the engine must offer to it.

RQ calls its task with plain arguments; the slot that runs it says here, per thread, on whose behalf.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import redis

from proxygrad.spec import Result, Spec
from workers.jobs import Jobs
from workers.leases import Leases, Run
from workers.storage import Store


class Progress(Protocol):
    """Steps done and the activation at that step; None before the first."""

    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def activation(self) -> float | None: ...  # noqa: D102


class Rendering(Protocol):
    """A finished image and what is known about it."""

    @property
    def png(self) -> bytes: ...  # noqa: D102
    @property
    def result(self) -> Result: ...  # noqa: D102


class Ticket(Protocol):
    """One image under way."""

    @property
    def progress(self) -> Progress: ...  # noqa: D102
    def wait(self, timeout_s: float) -> bool: ...  # noqa: D102
    def cancel(self) -> None: ...  # noqa: D102
    def result(self) -> Rendering: ...  # noqa: D102


class Engine(Protocol):
    """Computes images; any thread may submit. `proxygrad.engine.Engine` is one."""

    def submit(self, network: Any, spec: Spec) -> Ticket: ...  # noqa: D102


class Models(Protocol):
    """Networks by name, in the engine's own form. `workers.shelf.Shelf` is one."""

    def network(self, name: str) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class Runtime:
    """One worker process: its name, its parts, and whether it is about to stop."""

    worker: str
    redis: redis.Redis
    store: Store
    engine: Engine
    models: Models
    stopping: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def jobs(self) -> Jobs:
        """The jobs' records."""
        return Jobs(self.redis, self.store)

    @cached_property
    def leases(self) -> Leases:
        """The jobs' leases."""
        return Leases(self.redis)

    def now(self) -> float:
        """Seconds since 1970 on Redis' clock, which all records use."""
        seconds, micros = self.redis.time()
        return seconds + micros / 1e6


@dataclass(frozen=True)
class Assignment:
    """A run of a job in this process; ``lost`` is set when its lease was found ended."""

    run: Run
    runtime: Runtime
    lost: threading.Event = field(default_factory=threading.Event)


_current: ContextVar[Assignment] = ContextVar("assignment")


@contextmanager
def assigned(assignment: Assignment) -> Iterator[None]:
    """Within, `current` of this thread is ``assignment``."""
    token = _current.set(assignment)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Assignment:
    """On whose behalf this thread works. Raises `LookupError` outside a slot."""
    return _current.get()
