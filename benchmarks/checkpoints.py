"""What a checkpoint costs: its size, and time of a slot's thread. Figures: docs/measurements/queue.md.

``python benchmarks/checkpoints.py [models.toml MODEL LAYER]``; without arguments the bundled network.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from proxygrad import Engine, Spec
from proxygrad.models import Catalog
from proxygrad.networks.network import Network
from workers.storage.store import Store

TIMES = 12


def measure(engine: Engine, network: Network, layer: str, update: str, store: Store) -> str:
    """Take, serialize and store checkpoints of one lane; medians."""
    spec = Spec.model_validate(
        {"model": network.name, "layer": layer, "unit": 3, "steps": 4096, "update": update}
    )
    ticket = engine.submit(network, spec)
    while ticket.progress.step < 2:
        time.sleep(0.001)
    serialized_s, stored_s, size_bytes = [], [], 0
    for _ in range(TIMES):
        checkpoint = ticket.checkpoint(60.0)
        assert checkpoint is not None
        taken_s = time.perf_counter()
        data = checkpoint.to_bytes()
        ready_s = time.perf_counter()
        store.replace("job/checkpoint-run", data)
        serialized_s.append(ready_s - taken_s)
        stored_s.append(time.perf_counter() - ready_s)
        size_bytes = len(data)
    first, began_s = ticket.progress.step, time.perf_counter()
    while ticket.progress.step < first + 10:
        time.sleep(0.001)
    step_s = (time.perf_counter() - began_s) / 10
    ticket.cancel()
    shape = " × ".join(str(side) for side in network.input_shape)
    times = " | ".join(
        f"{seconds * 1e3:.1f} ms" for seconds in (median(serialized_s), median(stored_s), step_s)
    )
    return f"| {shape} ({network.name}) | `{update}` | {size_bytes / 1e3:.0f} KB | {times} |"


def main(arguments: list[str]) -> None:
    """Print a row for each rule of update."""
    path, model, layer = arguments or (None, "digits", "layer3")
    network = Catalog.from_file(Path(path) if path else None).load(model)
    print("| image | state | size | to bytes | into a directory | a step |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, Engine() as engine:
        store = Store.from_url(Path(folder).as_uri())
        for update in ("normalized", "adam"):
            print(measure(engine, network, layer, update, store), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
