"""What the service adds to the work itself: waiting, Redis commands, and CPU while there is nothing to do.

Starts a Valkey, a gateway and worker processes of its own on this machine, with a network so small that its
work hardly counts, and prints one row for each figure. Times of different processes are compared, so all run
on one machine and read its clock. The idle figures need Linux (`/proc`).

    python -m benchmarks.overhead
    python -m benchmarks.overhead --jobs 5000 --idle-s 60
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import cast

from redis import Redis

from benchmarks.figures import row, single
from benchmarks.observed import LOOK_S, MODELS, ROOT, TRACE, running, until, worker
from proxygrad.client import Client, ServiceUnreachable
from proxygrad.spec import ModelInfo, Spec
from service.server.sockets import address, listen
from service.stack.valkey import EmbeddedValkey
from tests.support.job_calls import submit
from workers.broker import keys, rq_names
from workers.broker.connection import connect
from workers.fleet import catalog
from workers.jobs.repository import Job, Jobs, Limits
from workers.storage.store import Store

PLENTY = Limits(10**6, 10**6)
#: Commands of the measurement itself, which no worker sends.
OURS = ("ZCARD", "INFO", "ECHO", "DEL")


def _answers(client: Client) -> bool:
    with suppress(ServiceUnreachable):
        return bool(client.models())
    return False


def question(seed: int, steps: int) -> Spec:
    return Spec(model="tiny", layer="0", unit=0, preset="max", starts=1, steps=steps, seed=seed)


def when_succeeded(redis: Redis, job_id: str) -> float:
    """When a reader that looks all the time sees the job's end."""
    while redis.hget(keys.job_key(job_id), "state") != b"succeeded":
        time.sleep(LOOK_S)
    return time.time()


def latencies(redis: Redis, jobs: Jobs, info: ModelInfo, client: Client, trace: Path, count: int) -> None:
    """One job at a time on an idle worker, every other one followed over HTTP."""
    created: dict[int, float] = {}
    seen: dict[int, float] = {}
    over_http: dict[int, float] = {}
    for seed in range(1, count + 1):
        time.sleep(0.02 + 0.03 * (seed % 7) / 7)
        job, _ = submit(jobs, question(seed, 4), info)
        created[seed] = job.created_at
        if seed % 2:
            seen[seed] = when_succeeded(redis, job.id)
        else:
            client.get(job.id, wait_s=10)
            over_http[seed] = time.time()
    time.sleep(0.5)
    lines = [line.split() for line in trace.read_text().splitlines()]
    first = {int(seed): float(at) for seed, at, _ in lines}
    ended = {int(seed): float(at) for seed, _, at in lines}
    row("queue to first step", [first[seed] - created[seed] for seed in created])
    row("engine's end to visible in the record", [seen[seed] - ended[seed] for seed in seen])
    row("engine's end to the answer of a long poll", [over_http[seed] - ended[seed] for seed in over_http])
    row("question to visible in the record", [seen[seed] - created[seed] for seed in seen])


def throughput(redis: Redis, jobs: Jobs, info: ModelInfo, count: int) -> None:
    """So many jobs of one step that wait when the worker begins."""
    ids, stats = _run_through(redis, jobs, info, range(10**6, 10**6 + count))
    ended = [cast(Job, jobs.fetch(job_id)) for job_id in ids]
    span_s = max(job.finished_at or 0 for job in ended) - min(job.started_at or 0 for job in ended)
    single("jobs of one step, one process", count / span_s, "jobs/s")
    single("Redis commands a job, those in scripts too", sum(stats.values()) / count, "")


def round_trips(redis: Redis, jobs: Jobs, info: ModelInfo, count: int) -> None:
    """The same again, with Redis telling of every command: those that clients sent are counted."""
    sent: list[str] = []

    def listen() -> None:
        with redis.monitor() as monitor:  # type: ignore[no-untyped-call]
            for command in monitor.listen():
                if command["client_type"] != "lua":
                    sent.append(command["command"].split()[0].upper())
                if command["command"] == "ECHO over":
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.2)
    _run_through(redis, jobs, info, range(2 * 10**6, 2 * 10**6 + count), sent)
    redis.echo("over")
    listener.join()
    counts = Counter(command for command in sent if command not in OURS)
    names = ", ".join(f"{name} {number / count:.2f}" for name, number in counts.most_common(4))
    single("Redis round trips a job", counts.total() / count, f"({names})")


def submissions(redis: Redis, jobs: Jobs, info: ModelInfo, count: int) -> None:
    """One by one, as Redis syncs its file each second and before each answer. Nobody takes the jobs."""
    redis.set("rq:suspended", 1)
    for number, policy in enumerate(("everysec", "always")):
        redis.config_set("appendfsync", policy)
        spans_s = []
        for seed in range(count):
            began_s = time.perf_counter()
            submit(jobs, question(3 * 10**6 + number * count + seed, 1), info, limits=PLENTY)
            spans_s.append(time.perf_counter() - began_s)
        row(f"submission, appendfsync {policy}", spans_s)
    redis.config_set("appendfsync", "everysec")


def _run_through(
    redis: Redis, jobs: Jobs, info: ModelInfo, seeds: range, sent: list[str] | None = None
) -> tuple[list[str], dict[str, float]]:
    """Let jobs wait, then be done; their ids, and how often Redis ran each command meanwhile."""
    redis.set("rq:suspended", 1)
    time.sleep(1.5)
    began_s = time.monotonic()
    ids = [submit(jobs, question(seed, 1), info, limits=PLENTY)[0].id for seed in seeds]
    if sent is None:
        single("submissions by one caller", len(seeds) / (time.monotonic() - began_s), "jobs/s")
    else:
        sent.clear()
    before, finished = _calls(redis), redis.zcard(rq_names.FINISHED_KEY)
    redis.delete("rq:suspended")
    looks = 0
    while redis.zcard(rq_names.FINISHED_KEY) < len(ids) + finished:
        looks += 1
        time.sleep(0.1)
    after = _calls(redis)
    after["zcard"] -= looks
    return ids, {name: calls - before.get(name, 0) for name, calls in after.items()}


def _calls(redis: Redis) -> dict[str, float]:
    """How often Redis has run each command, in scripts too."""
    stats = cast(dict[str, dict[str, float]], redis.info("commandstats"))
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


def idle(redis: Redis, pid: int, slots: int, span_s: float) -> None:
    """CPU of the worker and of Redis while nothing is asked, and the worker's connections."""
    server = int(redis.info("server")["process_id"])
    before = _cpu_s(pid), _cpu_s(server)
    time.sleep(span_s)
    spent = _cpu_s(pid) - before[0], _cpu_s(server) - before[1]
    single(f"idle worker, {slots} slots", 100 * spent[0] / span_s, "% of a core")
    single(f"its Redis, {slots} slots", 100 * spent[1] / span_s, "% of a core")
    single(f"its connections, {slots} slots", len(redis.client_list()) - 1, "")


def _cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(home: Path, arguments: argparse.Namespace) -> None:
    """All of it."""
    (home / "models.toml").write_text(MODELS)
    trace = home / "trace"
    trace.touch()
    with EmbeddedValkey(home / "valkey") as valkey, connect(valkey.url) as redis:
        environ = {
            **os.environ,
            "REDIS_URL": valkey.url,
            "PROXYGRAD_HOME": str(home),
            "PROXYGRAD_DEVICE": "cpu",
            "PROXYGRAD_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            TRACE: str(trace),
        }
        jobs = Jobs(redis, Store.from_url((home / "artifacts").as_uri()))
        print(f"{'':<42} {'p50':>8} {'p99':>8}")
        for slots in (64, 8):
            with worker(redis, environ, home, slots, observed=False) as pid:
                idle(redis, pid, slots, arguments.idle_s)
                if slots == 8:
                    info = cast(ModelInfo, catalog.served(redis)["tiny"].info)
                    throughput(redis, jobs, info, arguments.jobs)
                    round_trips(redis, jobs, info, 200)
                    submissions(redis, jobs, info, 500)
                    redis.flushall()
        with (
            worker(redis, environ, home, 8, observed=True),
            listen("127.0.0.1", 0) as free,
        ):
            url = address(free)
            free.close()
            gateway = {**environ, "PROXYGRAD_PORT": url.rpartition(":")[2]}
            with running(["-m", "service"], gateway, home), Client(url) as client:
                until(lambda: _answers(client), home)
                latencies(redis, jobs, info, client, trace, arguments.asked)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2000, help="of the throughput")
    parser.add_argument("--asked", type=int, default=300, help="questions on an idle worker")
    parser.add_argument("--idle-s", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-", dir="/tmp") as home:
        measure(Path(home), arguments)


if __name__ == "__main__":
    main()
