"""How long is a turn of an attribution, and what do larger turns gain? CPU time by rows of a turn.

A row is a pair of an input and a reference, or a point between them.

    python -m benchmarks.attribution_turns
    python -m benchmarks.attribution_turns --models models.toml --model squeezenet
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from proxygrad.attribution.attribute import Settings, begin
from proxygrad.models import Catalog
from proxygrad.networks.network import Network

ROWS = (1, 4, 16)


def turn_s(network: Network, layer: str, method: str, rows: int) -> float:
    """CPU seconds of a turn, the lower of two."""
    image = torch.rand(network.input_shape, generator=torch.Generator().manual_seed(0))
    settings = Settings(
        reference="shuffled", references=2 * max(ROWS), method=method, points=1, max_rows=rows, each=False
    )
    spent = []
    for _ in range(2):
        attribution = begin(network, image, f"{layer}:0", settings)
        began_s = time.process_time()
        attribution.advance()
        spent.append(time.process_time() - began_s)
    return min(spent)


def main() -> None:
    """Print a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=None, help="models.toml; default: the bundled model")
    parser.add_argument("--model", default="digits")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = Catalog.from_file(arguments.models).load(arguments.model, "cpu")
    layer = next(each.name for each in network.info.layers if each.kind == "logits")
    print("| network, size | method | ms a turn of 1, 4, 16 rows | ms a row |")
    print("|---|---|---|---|")
    for method in ("deeplift", "integrated_gradients"):
        found = [1e3 * turn_s(network, layer, method, rows) for rows in ROWS]
        turns = " / ".join(f"{each:.0f}" for each in found)
        each_row = " / ".join(f"{each / rows:.1f}" for each, rows in zip(found, ROWS, strict=True))
        print(
            f"| {network.name}, {network.input_shape[1]} px | `{method}` | {turns} | {each_row} |", flush=True
        )


if __name__ == "__main__":
    main()
