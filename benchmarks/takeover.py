"""How soon a job of a killed worker runs again elsewhere: kill -9 of one of several worker processes.

Starts an embedded Valkey and worker processes with an engine that only counts, and beats and leases as they
always are. Seconds from the kill until Redis has seen the connection go, until the job waits again, and until
another process has started it; a slot is free there.

    python -m benchmarks.takeover --workers 3 --kills 10
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from redis import Redis

from service.stack.valkey import EmbeddedValkey
from tests.support.eventually import until
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.worker_processes import worker
from tests.workers.queue.test_janitor_presence import subscribers
from tests.workers.scenarios.test_vanishing import holder, listed, steady
from workers.broker.connection import connect
from workers.jobs.repository import Jobs
from workers.queue.leases import LEASE_S
from workers.storage.store import Store

#: Of steps of 10 ms: more than any kill waits for.
STEPS = 2500


def kill(redis: Redis, jobs: Jobs, processes: list[subprocess.Popen[str]], unit: int) -> list[float]:
    """Kill the process that runs a new job, at a random moment; the three times in seconds."""
    time.sleep(random.uniform(1, 3))
    job, _ = submit(jobs, question(unit, steps=STEPS), MODEL)
    until(lambda: bool(holder(redis, job.id)), 30)
    time.sleep(random.uniform(0, 2))
    dead = holder(redis, job.id)
    (process,) = [each for each in processes if f"-{each.pid}-" in dead]
    process.kill()
    killed_s, times = time.monotonic(), []
    for reached in (
        lambda: subscribers(redis, dead) == 0,
        lambda: holder(redis, job.id) != dead,
        lambda: holder(redis, job.id) not in ("", dead),
    ):
        until(reached, 60)
        times.append(time.monotonic() - killed_s)
    processes.remove(process)
    jobs.cancel(job.id)
    return times


def measure(folder: Path, workers: int, kills: int) -> None:
    """Kill as often, starting another process after each; print the times."""
    store = Store.from_url((folder / "store").as_uri())
    with EmbeddedValkey(folder / "valkey") as server, connect(server.url) as redis, ExitStack() as running:
        command, rows = steady(server.url, store, LEASE_S), []
        processes = [running.enter_context(worker(*command)) for _ in range(workers)]
        for unit in range(kills):
            until(lambda: len(listed(redis)) == workers, 60)
            rows.append(kill(redis, Jobs(redis, store), processes, unit))
            processes.append(running.enter_context(worker(*command)))
    print(f"{workers} workers, {kills} kills -9, seconds\n\n| until | p50 | longest |\n|---|---|---|")
    names = ("the connection is gone", "it waits again", "it runs again")
    for name, taken in zip(names, zip(*rows, strict=True), strict=True):
        print(f"| {name} | {statistics.median(taken):.2f} | {max(taken):.2f} |")


def main() -> int:
    """Measure; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    if options.workers < 2:
        parser.error(f"--workers {options.workers}: another one has to be there; valid: 2 and more")
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.workers, options.kills)
    return 0


if __name__ == "__main__":
    sys.exit(main())
