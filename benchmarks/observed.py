"""A worker under observation: a tiny network, and a note of when each image had its first step and its end.

A process of its own, which `benchmarks.overhead` starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from workers.fleet import catalog

ROOT = Path(__file__).resolve().parent.parent
TRACE = "OVERHEAD_TRACE"  # file that a worker writes the times of its engine to
START_LIMIT_S = 60.0
LOOK_S = 0.0005
MODELS = """
[models.tiny]
builder = "benchmarks.observed:tiny"
input_shape = [1, 8, 8]
"""


def tiny() -> Any:
    """Two layers of 4 channels, the same each time."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())


def work() -> int:
    """A worker as `python -m workers`, which also notes when each image had its first step and its end."""
    from proxygrad.engine import engine
    from proxygrad.engine.future import RenderFuture
    from workers.process.main import main as worker

    with Path(os.environ[TRACE]).open("a", buffering=1) as trace:

        def observe(ticket: RenderFuture) -> None:
            while ticket.progress.step == 0:
                time.sleep(LOOK_S / 5)
            first_at = time.time()
            ticket.wait()
            trace.write(f"{ticket.spec.seed} {first_at!r} {time.time()!r}\n")

        class Observed(engine.Engine):
            def submit(self, *args: Any, **options: Any) -> RenderFuture:
                ticket = super().submit(*args, **options)
                threading.Thread(target=observe, args=(ticket,), daemon=True).start()
                return ticket

        engine.Engine = Observed  # type: ignore[misc]
        return worker([], os.environ)


@contextmanager
def running(command: list[str], environ: Mapping[str, str], home: Path) -> Iterator[int]:
    """The process id of a process that lives as long as the block; its log is kept in ``home``."""
    with (home / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, *command], env=environ, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def worker(redis: Redis, environ: Mapping[str, str], home: Path, slots: int, observed: bool) -> Iterator[int]:
    """A worker that serves `tiny`."""
    command = ["-m", "benchmarks.observed"] if observed else ["-m", "workers"]
    with running(command, {**environ, "PROXYGRAD_SLOTS": str(slots)}, home) as pid:
        until(lambda: "tiny" in catalog.served(redis), home)
        time.sleep(2)  # what it does once at its start
        yield pid


def until(ready: Callable[[], bool], home: Path) -> None:
    """Wait for it; ends the benchmark with the log under ``home`` when it takes too long."""
    until_s = time.monotonic() + START_LIMIT_S
    while not ready():
        if time.monotonic() > until_s:
            raise SystemExit(f"not ready within {START_LIMIT_S:g} s:\n{(home / 'log').read_text()[-2000:]}")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(work())
