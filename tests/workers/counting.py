"""A deterministic engine for tests of the queue: it counts steps of a given length and makes a real PNG.

Run as a program it is a worker process around that engine: ``REDIS_URL STORE_URL SLOTS STEP_S``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from proxygrad.images import encode_png
from proxygrad.spec import Result, Spec
from tests.workers.questions import MODEL, outcome


@dataclass(frozen=True)
class Counted:
    step: int
    activation: float | None


@dataclass(frozen=True)
class Drawing:
    png: bytes
    result: Result


class CountingTicket:
    """Ends ``steps * step_s`` seconds after its start: with ``error``, or with a grey image."""

    def __init__(self, spec: Spec, step_s: float, error: Exception | None) -> None:
        self.spec = spec
        self.cancelled = False
        self._step_s = step_s
        self._error = error
        self._started_s = time.monotonic()

    @property
    def progress(self) -> Counted:
        done = min(self.spec.steps, int((time.monotonic() - self._started_s) / self._step_s))
        return Counted(done, done / 10 if done else None)

    def wait(self, timeout_s: float) -> bool:
        left_s = self._started_s + self.spec.steps * self._step_s - time.monotonic()
        time.sleep(max(0.0, min(left_s, timeout_s)))
        return left_s <= timeout_s

    def cancel(self) -> None:
        self.cancelled = True

    def result(self) -> Drawing:
        if self._error is not None:
            raise self._error
        level = self.spec.unit % 256
        return Drawing(encode_png(torch.full((1, 8, 8), level / 255)), outcome(self.spec))


@dataclass
class CountingEngine:
    """``errors``: by unit, what ends its lane. ``tickets`` holds every one that was given out."""

    step_s: float = 0.002
    errors: Mapping[int, Exception] = field(default_factory=dict)
    tickets: list[CountingTicket] = field(default_factory=list)

    def submit(self, network: object, spec: Spec) -> CountingTicket:
        ticket = CountingTicket(spec, self.step_s, self.errors.get(spec.unit))
        self.tickets.append(ticket)
        return ticket


class AnyModel:
    def network(self, name: str) -> str:
        return name


def main(redis_url: str, store_url: str, slots: str, step_s: str) -> None:
    from workers import leases
    from workers import main as program
    from workers.catalog import ServedModel
    from workers.runtime import Runtime
    from workers.settings import connect
    from workers.storage import Store

    leases.LEASE_S, leases.BEAT_S = 2, 0.5  # a third of the real ones: tests wait for them
    program.log_to_stderr()
    runtime = Runtime(
        program.worker_name(),
        connect(redis_url),
        Store.from_url(store_url),
        CountingEngine(float(step_s)),
        AnyModel(),
        program.stop_on_signals(),
    )
    program.serve(runtime, [ServedModel(name=MODEL.name, info=MODEL)], int(slots))


if __name__ == "__main__":
    main(*sys.argv[1:])
