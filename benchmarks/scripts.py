"""What the queue's scripts cost in Redis: microseconds of the server's processor time per call (`INFO cpu`).

Starts a Valkey of its own on a unix socket. The jobs are of one caller and ``--waiting`` many, spread over 1
and then 80 models; "at the tail" are jobs of newcomers, which stand at the end of RQ's list.

    python benchmarks/scripts.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from proxygrad.spec import Spec
from service.stack.valkey import EmbeddedValkey
from workers.broker.connection import connect
from workers.broker.pipeline import run_blocking
from workers.jobs.commands import Submit
from workers.jobs.kinds.visualization import VISUALIZATION
from workers.jobs.repository import Limits
from workers.jobs.requests import Submission
from workers.queue.fair_queue import FairQueue
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Run

CALLS = 200
PLENTY = Limits(10**9, 10**9)


class Bench:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._submit = Submit(redis)
        self._next = 0

    def submit(self, model: str, caller: str) -> str:
        """One more job; its id."""
        self._next += 1
        job_id = f"{self._next:032x}"
        spec = Spec(model=model, layer="conv", unit=self._next, objective="channel", size_px=224)
        submission = Submission(job_id=job_id, kind=VISUALIZATION, spec=spec, cost=6.4, caller=caller)
        run_blocking(self._submit(submission, "submit", PLENTY), self._redis)
        return job_id

    def memory(self) -> int:
        return int(self._redis.info("memory")["used_memory"])

    def report(self, what: str, act: Callable[[], object], calls: int = CALLS) -> None:
        """Print what the server spent per ``act``, reading and answering included, after a first one."""
        act()
        before_s = self._spent_s()
        for _ in range(calls):
            act()
        print(f"{what:<60} {(self._spent_s() - before_s) / calls * 1e6:9.0f} us", flush=True)

    def _spent_s(self) -> float:
        spent = self._redis.info("cpu")
        return float(spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"])


def order(redis: Redis, models: list[str], waiting: int) -> None:
    """Submitting, popping, places and janitors, with jobs of so many models."""
    bench, ready, janitor, count = Bench(redis), FairQueue(redis), Janitor(redis), len(models)
    bench.report(f"pop, {count} models, nothing waits", lambda: ready.pop(models, 1))
    before = bench.memory()
    last = [bench.submit(models[number % count], "flood") for number in range(waiting)][-1]
    print(f"{'memory of a waiting job':<60} {(bench.memory() - before) / waiting:9.0f} bytes")
    bench.report(f"submit, {count} models", lambda: bench.submit(models[-1], "flood"))
    bench.report(f"pop, {count} models, {waiting} wait, at the head", lambda: ready.pop(models, 1))
    for number in range(CALLS + 1):
        bench.submit(models[number % count], f"newcomer-{number}")
    bench.report(f"pop, {count} models, {waiting} wait, at the tail", lambda: ready.pop(models, 1))
    bench.report(f"position, {count} models, {waiting} wait", lambda: ready.position(last))
    bench.report(f"sweep, {count} models, {waiting} wait", janitor.sweep, 20)
    bench.report(f"tidy, {count} models, {waiting} wait", janitor.tidy, 5)


def runs(redis: Redis) -> None:
    """What a run does with its job."""
    bench, leases = Bench(redis), Leases(redis)
    for _ in range(CALLS + 1):
        bench.submit("one", "a")
    held = [Run(job_id, "e") for job_id in FairQueue(redis).pop(["one"], CALLS + 1)]
    takes, closes = iter(held), iter(held)
    bench.report("take", lambda: leases.take(next(takes), slot="s", worker="w"))
    bench.report("beat", lambda: leases.beat(held[0]))
    bench.report("64 beats in one", lambda: leases.beat_all(held[:64]))
    bench.report("write", lambda: leases.write(held[0], {"step": 5, "activation": 0.5}))
    bench.report("close", lambda: leases.close(next(closes), "succeeded", slot="s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--waiting", type=int, default=10_000, help="jobs that wait (default %(default)s)")
    waiting = parser.parse_args().waiting
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedValkey(Path(directory)) as server,
        connect(server.url) as redis,
    ):
        for count in (1, 80):
            redis.flushall()
            order(redis, [f"model-{number}" for number in range(count)], waiting)
        redis.flushall()
        runs(redis)


if __name__ == "__main__":
    main()
