"""A deterministic engine for tests of the queue: it counts steps of a given length and makes a real PNG.

Run as a program it is a worker process around that engine: ``REDIS_URL STORE_URL SLOTS STEP_S``. There
`POISON` is a unit that kills the process, and `HANGING` one that stops the engine, when their job begins.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from PIL import Image

from proxygrad.errors import CheckpointMismatch, DeadlineExceeded, RenderCanceled
from proxygrad.spec import ModelInfo, Result, Spec
from tests.support.model_on_paper import MODEL, outcome
from workers.fleet.catalog import ServedModel

T = TypeVar("T")

POISON = 666
HANGING = 777


@dataclass(frozen=True)
class Counted:
    step: int
    activation: float | None

    def to_bytes(self) -> bytes:
        return b"counted %d" % self.step

    @classmethod
    def from_bytes(cls, data: bytes) -> Counted:
        word, _, step = data.partition(b" ")
        if word != b"counted":
            raise CheckpointMismatch("these bytes are no checkpoint")
        return cls(int(step), int(step) / 10)


@dataclass(frozen=True)
class Drawing:
    images: tuple[bytes, ...]
    result: Result


class CountingTicket:
    """Ends ``step_s`` seconds for each step after its start: with ``error``, or with a gray image."""

    def __init__(
        self, spec: Spec, step_s: float, error: Exception | None, deadline_s: float | None, begin_at: int
    ) -> None:
        self.spec = spec
        self.begin_at = begin_at
        self._step_s = step_s
        self._error = error
        self._deadline_s = deadline_s
        self._started_s = time.monotonic()
        self._ends_s = self._started_s + (spec.steps - begin_at) * step_s
        self._stopped_s = float("inf")
        self._changed = threading.Condition()
        self.extend_deadline(deadline_s)

    @property
    def canceled(self) -> bool:
        return self._stopped_s < self._ends_s

    @property
    def progress(self) -> Counted:
        ran_s = min(time.monotonic(), self._stopped_s, self._overdue_s) - self._started_s
        done = min(self.spec.steps, self.begin_at + int(ran_s / self._step_s))
        return Counted(done, done / 10 if done else None)

    @property
    def remaining_s(self) -> float | None:
        if self.progress.step < self.begin_at + 2:
            return None
        return max(0.0, self._ends_s - time.monotonic())

    def wait(self, timeout_s: float) -> bool:
        until_s = time.monotonic() + timeout_s
        with self._changed:
            while (now_s := time.monotonic()) < min(until_s, self._over_s):
                self._changed.wait(min(until_s, self._over_s) - now_s)
            return now_s >= self._over_s

    def cancel(self) -> None:
        with self._changed:
            self._stopped_s = min(self._stopped_s, time.monotonic())
            self._changed.notify_all()

    def finish(self) -> None:
        """Have it end now, as if all its steps were done."""
        with self._changed:
            self._ends_s = min(self._ends_s, time.monotonic())
            self._changed.notify_all()

    def extend_deadline(self, seconds_from_now: float | None) -> None:
        with self._changed:
            left_s = float("inf") if seconds_from_now is None else seconds_from_now
            self._overdue_s = time.monotonic() + left_s
            self._changed.notify_all()

    def preview(self) -> bytes | None:
        return None

    def checkpoint(self, timeout_s: float) -> Counted | None:
        return None if time.monotonic() >= self._over_s else self.progress

    def result(self) -> Drawing:
        if self._stopped_s <= self._over_s:
            raise RenderCanceled(f"canceled after step {self.progress.step}")
        if self._overdue_s <= self._over_s:
            raise DeadlineExceeded(self.progress.step, self.spec.steps, self._deadline_s or 0.0)
        if self._error is not None:
            raise self._error
        levels = ((self.spec.unit + number) % 256 for number in range(self.spec.lanes))
        pictures = tuple(map(gray_png, levels))
        return Drawing(pictures, outcome(self.spec))

    @property
    def _over_s(self) -> float:
        return min(self._ends_s, self._stopped_s, self._overdue_s)


def gray_png(level: int) -> bytes:
    """A PNG of 8 × 8 pixels, gray, all of that level."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), level).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@dataclass
class CountingEngine:
    """``errors``: by unit, what ends its lane. ``tickets`` holds every one that was given out.

    Since ``hangs_since_s`` it has not finished anything.
    """

    step_s: float = 0.002
    errors: Mapping[int, Exception] = field(default_factory=dict)
    tickets: list[CountingTicket] = field(default_factory=list)
    hangs_since_s: float | None = None
    deadly: bool = False
    closed: bool = False

    @property
    def stalled_s(self) -> float:
        return 0.0 if self.hangs_since_s is None else time.monotonic() - self.hangs_since_s

    def submit(
        self, network: object, spec: Spec, *, deadline_s: float | None = None, checkpoint: bytes | None = None
    ) -> CountingTicket:
        if self.closed:
            raise RenderCanceled("the engine is closing and takes no more work")
        if self.deadly and spec.unit == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deadly and spec.unit == HANGING:
            self.hangs_since_s = self.hangs_since_s or time.monotonic()
        begin_at = 0 if checkpoint is None else Counted.from_bytes(checkpoint).step
        ticket = CountingTicket(spec, self.step_s, self.errors.get(spec.unit), deadline_s, begin_at)
        self.tickets.append(ticket)
        return ticket

    def call(self, function: Callable[[], T]) -> Future[T]:
        """In the caller's thread."""
        if self.closed:
            raise RenderCanceled("the engine is closing and takes no more work")
        future: Future[T] = Future()
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class OnPaper:
    info: ModelInfo = MODEL
    name: str = MODEL.name


class AnyModel:
    """Lends the model on paper, by any name."""

    @property
    def served(self) -> Sequence[ServedModel]:
        return (ServedModel(name=MODEL.name, info=MODEL),)

    @contextmanager
    def lent(self, name: str) -> Iterator[OnPaper]:
        yield OnPaper()


def main(
    redis_url: str,
    store_url: str,
    slots: str,
    step_s: str,
    grace_s: str = "1",
    stall_s: str = "1",
    lease_s: str = "2",  # by default a third of the real one: tests wait for it
    beat_s: str = "0.5",
) -> int:
    from workers import logs
    from workers.execution import checkpoints
    from workers.execution.context import WorkerContext
    from workers.execution.drain import Drain
    from workers.process import main as program
    from workers.process.signals import drain_on_signals
    from workers.queue import leases
    from workers.storage.store import Store

    leases.LEASE_S, leases.BEAT_S = int(lease_s), float(beat_s)
    checkpoints.CHECKPOINT_S = 0.3
    logs.configure("text")
    drain = Drain(float(grace_s))
    drain_on_signals(drain)
    engine = CountingEngine(float(step_s), deadly=True)
    with program.commands_to(redis_url) as redis, program.listening_to(redis_url) as listening:
        store = Store.from_url(store_url)
        runtime = WorkerContext(
            program.worker_name(), redis, store, engine, AnyModel(), drain, float(stall_s)
        )
        return program.serve(runtime, int(slots), listening)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
