"""What reading a picture costs a gateway: time by format, and how several at once slow down its event loop.

    python -m benchmarks.uploads
    python -m benchmarks.uploads --url http://127.0.0.1:8000 --pid 4711 --model squeezenet

With a URL: the CPU time of a running gateway, whose process is ``--pid``, for each request with an array. It
needs a model of three channels, PROXYGRAD_MAX_UPLOAD_BYTES=33554432 and PROXYGRAD_MAX_SIZE_PX=1024.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import resource
import time
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from proxygrad.pictures import read_picture

MAX_PIXELS = 24_000_000
#: The loop looks at the clock this often; what it is late by is what a request waits.
TICK_S = 0.002


def samples() -> dict[str, bytes]:
    """Pictures as callers send them: a smooth photograph of 12 megapixels, and arrays."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    photo = coarse.resize((4000, 3000), Image.Resampling.BICUBIC)
    found = {}
    for form, options in (("JPEG", {"quality": 90}), ("PNG", {}), ("WEBP", {"quality": 90})):
        buffer = io.BytesIO()
        photo.save(buffer, form, **options)
        found[f"{form}, 12 megapixels"] = buffer.getvalue()
    for dtype in (np.uint8, np.float32, np.float64):
        array = generator.random((3, 1024, 1024))
        buffer = io.BytesIO()
        np.save(buffer, (array * 255).astype(dtype) if dtype == np.uint8 else array.astype(dtype))
        found[f"NPY, {np.dtype(dtype)}, 3 × 1024 × 1024"] = buffer.getvalue()
    return found


def read(data: bytes) -> None:
    """As for a network of 224 px."""
    read_picture(data, 3, (224, 224), max_pixels=MAX_PIXELS)


async def together(data: bytes, at_once: int, number: int = 8) -> tuple[float, float]:
    """Pictures a second with so many threads, and the longest delay of the event loop in milliseconds."""
    late_s, over, slots = 0.0, False, asyncio.Semaphore(at_once)

    async def watch() -> None:
        nonlocal late_s
        while not over:
            due_s = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            late_s = max(late_s, time.perf_counter() - due_s)

    async def one() -> None:
        async with slots:
            await asyncio.to_thread(read, data)

    watching = asyncio.create_task(watch())
    began_s = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(number)))
    rate, over = number / (time.perf_counter() - began_s), True
    await watching
    return rate, 1e3 * late_s


def of_gateway(url: str, pid: int, model: str, number: int = 8) -> None:
    """Print a table of requests to a running gateway, each with other pixels."""

    def cpu_s() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    generator = np.random.default_rng()
    question = {"model": model, "layer": "output", "unit": 1, "method": "saliency", "deadline_s": 0.01}
    print("| `image` of a form | MiB | ms of CPU | ms per 64 KB |\n|---|---|---|---|")
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        for dtype, side in ((np.float32, 1024), (np.float64, 1024), (np.uint8, 1024), (np.float32, 224)):
            bodies = []
            for _ in range(number + 1):
                buffer, array = io.BytesIO(), generator.random((3, side, side))
                np.save(buffer, (array * 255 if dtype == np.uint8 else array).astype(dtype))
                bodies.append(buffer.getvalue())
            began_s = 0.0
            for sent, body in enumerate(bodies):
                began_s = cpu_s() if sent == 1 else began_s  # the first warms up
                files, data = {"image": ("array.npy", body)}, {"attribution": json.dumps(question)}
                http.post("/v1/attributions", files=files, data=data).raise_for_status()
            spent_ms = 1e3 * (cpu_s() - began_s) / number
            mib = len(bodies[0]) / 2**20
            name = f"NPY, {np.dtype(dtype)}, 3 × {side} × {side}"
            print(f"| {name} | {mib:.1f} | {spent_ms:.0f} | {spent_ms / mib / 16:.1f} |", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default=None)
    parser.add_argument("--pid", type=int, default=0)
    parser.add_argument("--model", default="squeezenet")
    arguments = parser.parse_args()
    if arguments.url:
        of_gateway(arguments.url, arguments.pid, arguments.model)
        return
    print("| picture | MB | CPU, ms | a second: 1, 2, 4 at once | longest delay of the loop, ms |")
    print("|---|---|---|---|---|")
    for name, data in samples().items():
        read(data)
        spent = []
        for _ in range(5):
            began_s = time.process_time()
            read(data)
            spent.append(1e3 * (time.process_time() - began_s))
        found = [asyncio.run(together(data, at_once)) for at_once in (1, 2, 4)]
        rates = " ".join(f"{rate:.1f}" for rate, _ in found)
        delays = " ".join(f"{delay:.0f}" for _, delay in found)
        print(f"| {name} | {len(data) / 1e6:.1f} | {min(spent):.0f} | {rates} | {delays} |")
    print(f"\nlargest size of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
