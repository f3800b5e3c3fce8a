"""Many who follow at once: 1,000 event streams and 1,000 long polls on one gateway, with a real worker.

Starts an embedded Valkey, a worker and a gateway; asks for a few visualizations, lets each listener follow
one of them to its end, and prints what that took:

    python -m benchmarks.listeners --streams 1000 --polls 1000 --jobs 20
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.figures import percentile
from benchmarks.processes import printed, started
from service.stack.valkey import EmbeddedValkey
from workers.broker.connection import connect

SPEC = {"model": "digits", "layer": "layer3", "size_px": 64}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--polls", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder) / "valkey") as valkey:
        environ = {
            **os.environ,
            "REDIS_URL": valkey.url,
            "PROXYGRAD_HOME": folder,
            "PROXYGRAD_PORT": "0",
            "OMP_NUM_THREADS": "1",
        }
        worker = started(["-m", "workers"], environ, Path(folder) / "worker.log")
        gateway = started(["-m", "service"], environ, Path(folder) / "gateway.log")
        try:
            url = printed(Path(folder) / "gateway.log", r"listening on (http://\S+)")
            return asyncio.run(measure(url, valkey.url, gateway.pid, options))
        finally:
            for process in (gateway, worker):
                process.terminate()
                process.wait(30)


def memory_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1e3


def clients(redis_url: str) -> Counter[str]:
    """Connections to Redis by process and kind; this one's own left out."""
    with connect(redis_url) as redis:
        found: list[dict[str, str]] = redis.client_list()
    return Counter("subscribers" if int(each["sub"]) else "others" for each in found)


async def measure(url: str, redis_url: str, pid: int, options: argparse.Namespace) -> int:
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        await ready(http)
        before_mb, before = memory_mb(pid), clients(redis_url)
        ids = [await submit(http, unit, options.steps) for unit in range(options.jobs)]
        counts = {"open": 0}
        streams = [
            asyncio.create_task(stream(url, ids[n % len(ids)], counts)) for n in range(options.streams)
        ]
        polls = [asyncio.create_task(poll(url, ids[n % len(ids)])) for n in range(options.polls)]
        began_s = time.monotonic()
        while counts["open"] < options.streams and time.monotonic() - began_s < 60:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        print(f"{counts['open']} streams open after {time.monotonic() - began_s:.1f} s")
        await asyncio.sleep(2)
        print(
            f"memory of the gateway: {before_mb:.0f} MB before, {memory_mb(pid):.0f} MB with all listeners,"
        )
        each_kb = (memory_mb(pid) - before_mb) * 1e3 / (options.streams + options.polls)
        print(f"  {each_kb:.0f} KB for each")
        print(
            f"connections to Redis, worker's too: before {dict(before)}, with all {dict(clients(redis_url))}"
        )
        told, answered = await asyncio.gather(*streams), await asyncio.gather(*polls)
        print(f"all ended after {time.monotonic() - began_s:.1f} s")
        ends = [await http.get(f"/v1/visualizations/{job_id}") for job_id in ids]
        finished = {each.json()["id"]: each.json()["finished_at"] for each in ends}
        print(
            f"streams: last states {dict(Counter(each['state'] for each in told))}, "
            f"events {Counter(kind for each in told for kind in each['kinds'])}"
        )
        print(f"polls: states {dict(Counter(answered))}")
        late = [each["at"] - epoch_s(finished[each["id"]]) for each in told]
        print(
            f"from a job's end to its listener's: p50 {percentile(late, 0.5):.3f} s, p99 "
            f"{percentile(late, 0.99):.3f} s, last {max(late):.3f} s"
        )
        good = all(each["state"] == "succeeded" for each in told) and set(answered) <= {"succeeded"}
        return 0 if good and len(told) == options.streams and len(answered) == options.polls else 1


def epoch_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def ready(http: httpx.AsyncClient) -> None:
    for _ in range(1200):
        if (await http.get("/readyz")).status_code == 200 and (await http.get("/v1/models")).json()["models"]:
            return
        await asyncio.sleep(0.1)
    raise SystemExit("no worker became ready")


async def submit(http: httpx.AsyncClient, unit: int, steps: int) -> str:
    response = await http.post("/v1/visualizations", json={**SPEC, "unit": unit, "steps": steps})
    response.raise_for_status()
    return str(response.json()["id"])


async def opened(url: str, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request on a bare socket: a client's own work would be most of what is measured."""
    where = httpx.URL(url)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {where.host}\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head, head
    return reader, writer


async def stream(url: str, job_id: str, counts: dict[str, int]) -> dict[str, Any]:
    reader, writer = await opened(url, f"/v1/visualizations/{job_id}/events")
    counts["open"] += 1
    kinds, state = [], ""
    async for line in reader:
        if line.startswith(b"event: "):
            kinds.append(line[7:].strip().decode())
        elif line.startswith(b'data: {"state":"'):
            state = line.split(b'"')[3].decode()
    writer.close()
    return {"id": job_id, "state": state, "kinds": kinds, "at": time.time()}


async def poll(url: str, job_id: str) -> str:
    """One long poll after another until the end, as clients do."""
    state = "queued"
    while state in ("queued", "running"):
        reader, writer = await opened(url, f"/v1/visualizations/{job_id}?wait=60")
        body = await reader.read()
        writer.close()
        found = re.search(rb'"state":"(\w+)"', body)
        assert found, body
        state = found[1].decode()
    return state


if __name__ == "__main__":
    sys.exit(main())
