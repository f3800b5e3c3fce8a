"""What one core of the gateway answers in a second, beside FastAPI's hello-world on the same core.

Starts an embedded Valkey, a worker that answers one question and ends, a gateway and a hello-world under the
same uvicorn settings, both on one core, all else on the others. Each kind of request takes turns with
hello-world, so that a busy machine slows both; the ratio is the median over the turns:

    python -m benchmarks.gateway --turns 5 --seconds 2

CPU is that of the server's process for each request. On a busy machine trust its ratio, the last column: what
a core of its own would answer; the scheduler favors the server with more threads in the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median

import httpx
import uvicorn
from fastapi import FastAPI

from benchmarks.processes import printed, started
from benchmarks.raw import Kind, Server, Turn, request, turn
from service.auth.keys import Keys
from service.server.run import server_config
from service.server.sockets import address, listen
from service.stack.valkey import EmbeddedValkey
from workers.broker.connection import connect
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.process.periodic import PeriodicThread

QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}


def kinds(gateway: Server, headers: dict[str, str], seeds: Iterator[int]) -> list[Kind]:
    """What is asked of the gateway; the answer to `QUESTION` is there."""
    with httpx.Client(base_url=gateway.url, headers=headers) as http:
        answered = http.post("/v1/visualizations", json=QUESTION).json()
        waiting = http.post("/v1/visualizations", json={**QUESTION, "seed": next(seeds)}).json()
        etag = http.get(answered["links"]["image"]).headers["etag"]
    assert (answered["state"], waiting["state"]) == ("succeeded", "queued")

    def new() -> bytes:
        body = json.dumps({**QUESTION, "seed": next(seeds)}).encode()
        return request("POST", "/v1/visualizations", headers, body)

    def same(sent: bytes) -> Callable[[], bytes]:
        return lambda: sent

    again = request("POST", "/v1/visualizations", headers, json.dumps(QUESTION).encode())
    picture = request("GET", answered["links"]["image"], {**headers, "If-None-Match": etag})
    return [
        Kind("cached answer", gateway, 200, same(again)),
        Kind("poll of an answer", gateway, 200, same(request("GET", answered["links"]["self"], headers))),
        Kind("poll of a waiting job", gateway, 200, same(request("GET", waiting["links"]["self"], headers))),
        Kind("new submission", gateway, 202, new),
        Kind("image, 304", gateway, 304, same(picture)),
    ]


def compare(hello: Server, asked: list[Kind], options: argparse.Namespace) -> None:
    """Let each kind take turns with hello-world, and print the table."""
    plain = Kind("hello-world", hello, 200, lambda: request("GET", "/", {}))
    mine: dict[str, list[Turn]] = {kind.name: [] for kind in [plain, *asked]}
    ratios: dict[str, list[float]] = {kind.name: [] for kind in asked}
    for _ in range(options.turns):
        for kind in asked:
            before, after = (
                asyncio.run(turn(each, options.connections, options.seconds)) for each in (plain, kind)
            )
            mine[plain.name].append(before)
            mine[kind.name].append(after)
            ratios[kind.name].append(after.per_s / before.per_s)
    print("| request | a second | of hello-world's | p50 | p99 | CPU | hello-world's CPU of it |")
    print("|---|---|---|---|---|---|---|")
    plain_s = median(one.cpu_s for one in mine[plain.name])
    for name, turns in mine.items():
        all_s = sorted(each for one in turns for each in one.latencies_s)
        ratio = f"{median(ratios[name]):.0%}" if name in ratios else ""
        print(
            f"| {name} | {median(one.per_s for one in turns):,.0f} | {ratio} "
            f"| {all_s[len(all_s) // 2] * 1e3:.1f} ms | {all_s[int(len(all_s) * 0.99)] * 1e3:.1f} ms "
            f"| {median(one.cpu_s for one in turns) * 1e6:.0f} µs "
            f"| {plain_s / median(one.cpu_s for one in turns):.0%} |",
            flush=True,
        )


def answer(url: str, redis_url: str, worker: subprocess.Popen[bytes]) -> list[ServedModel]:
    """Let the worker answer the question and end; what it served."""
    with httpx.Client(base_url=url, timeout=90) as http, connect(redis_url) as redis:
        for _ in range(600):
            if http.get("/v1/models").is_success:
                break
            time.sleep(0.1)
        done = http.post("/v1/visualizations", json=QUESTION, headers={"Prefer": "wait=60"}).json()
        assert done["state"] == "succeeded", done
        models = list(catalog.served(redis).values())
        worker.terminate()
        worker.wait(60)
        return models


@contextmanager
def published(redis_url: str, models: list[ServedModel]) -> Iterator[None]:
    """Say again and again that a worker serves them: such a word is believed for a minute at most."""
    over = threading.Event()
    with connect(redis_url) as redis:
        thread = PeriodicThread(
            "catalog", lambda: catalog.publish(redis, "benchmark", models, ttl_s=60), 15.0, over
        )
        thread.start()
        yield
        over.set()
        thread.join()


def keyed(url: str, redis_url: str) -> dict[str, str]:
    """Make a key; the headers to send from when keys are in force."""
    with connect(redis_url) as redis:
        _, token = Keys(redis).create("benchmark", rate_per_min=1_000_000, in_flight=None)
    while httpx.get(f"{url}/v1/models").status_code != 401:
        time.sleep(0.2)
    return {"Authorization": f"Bearer {token}"}


def serve_hello() -> None:
    """Hello-world until it is terminated, as the gateway is served."""
    app = FastAPI()

    @app.get("/")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    with listen("127.0.0.1", 0) as listener:
        print(f"listening on {address(listener)}", flush=True)
        uvicorn.Server(server_config(app)).run(sockets=[listener])


def measure(folder: Path, redis_url: str, options: argparse.Namespace) -> None:
    """Start the servers, compare without and with a key, and end them."""
    first, *others = sorted(os.sched_getaffinity(0))
    environ = {
        **os.environ,
        "REDIS_URL": redis_url,
        "PROXYGRAD_HOME": str(folder),
        "PROXYGRAD_PORT": "0",
        "PROXYGRAD_MAX_QUEUED": "1000000",
        "PROXYGRAD_MAX_QUEUED_PER_CALLER": "1000000",
        "OMP_NUM_THREADS": "1",
    }
    commands = {
        "worker": ["-m", "workers"],
        "gateway": ["-m", "service"],
        "hello": ["-m", "benchmarks.gateway", "--hello"],
    }
    running = {
        name: started(command, environ, folder / f"{name}.log", None if name == "worker" else first)
        for name, command in commands.items()
    }
    if others:
        os.sched_setaffinity(0, others)
    try:
        gateway, hello = (
            Server(running[name].pid, printed(folder / f"{name}.log", r"listening on (http://\S+)"))
            for name in ("gateway", "hello")
        )
        models = answer(gateway.url, redis_url, running["worker"])
        seeds = count(1)
        with published(redis_url, models):
            print(f"load {os.getloadavg()[0]:.1f}, {options.connections} connections; without keys:")
            compare(hello, kinds(gateway, {}, seeds), options)
            if options.keys:
                headers = keyed(gateway.url, redis_url)
                print("with a key:")
                compare(hello, kinds(gateway, headers, seeds), options)
    finally:
        for process in running.values():
            process.terminate()
            process.wait(30)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--keys", action="store_true", help="measure with a key too")
    parser.add_argument("--hello", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hello:
        serve_hello()
        return 0
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder) / "valkey") as valkey:
        measure(Path(folder), valkey.url, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
