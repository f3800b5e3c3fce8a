"""Does it help to spread the gradient of max pooling over its windows?

For each of ``--layers`` the first ``--units`` units as channels and as central neurons, with every one of
``--shares`` of the gradient spread (``spread_max_pool``) and everything else the same. Prints, against the
first share: on how many units more was reached, the median ratio of achieved activations, the one that a
tenth of the units fall below and the worst; and how many units were stuck.

    python benchmarks/pooling.py --models models.toml --model squeezenet --size-px 112 --steps 48
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import torch

from proxygrad import Catalog, Channel, Network, Neuron, Objective, Visualization, maximize
from proxygrad.spec.settings import PRESETS


def questions(network: Network, layer: str, units: int) -> list[Objective]:
    """The first units, as channels and then as neurons."""
    numbers = range(min(units, network.layer(layer).units))
    return [*(Channel(layer, unit) for unit in numbers), *(Neuron(layer, unit) for unit in numbers)]


def row(found: list[Visualization], reference: list[Visualization]) -> str:
    """Units, on how many more was reached, three ratios, and how many were stuck, as columns."""
    pairs = [(one.activation, other.activation) for one, other in zip(found, reference, strict=True)]
    ratios = sorted(one / other for one, other in pairs if other > 0)
    columns = f"{median(ratios):>7.3f} {ratios[len(ratios) // 10]:>6.3f} {ratios[0]:>6.3f}"
    more = sum(one > other for one, other in pairs)
    return f"{len(found):>5} {more:>5} {columns} {sum(each.stuck for each in found):>6}"


def main() -> None:
    """Measure and print one row for each layer and share, and the rows of all layers together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="a models.toml: `digits` pools nothing")
    parser.add_argument("--model", required=True)
    parser.add_argument("--layers", nargs="+", default=["features.7", "features.10", "features.12"])
    parser.add_argument("--units", type=int, default=16, help="the first N units of each layer")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.1, 0.3, 0.5])
    parser.add_argument("--slope", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=PRESETS["max"]["steps"])
    parser.add_argument("--step-size", type=float, default=PRESETS["max"]["step_size"])
    parser.add_argument("--size-px", type=int)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    network = Catalog.from_file(arguments.models).load(arguments.model)
    settings = {name: getattr(arguments, name) for name in ("slope", "steps", "step_size", "size_px")}
    settings |= {"preset": "max", "starts": 1, "gaf": "none"}
    print(f"{arguments.model}, slope {arguments.slope:g}, {arguments.steps} steps, seed 0")
    print(
        f"{'layer':<12} {'share':>5} {'units':>5} {'more':>5} "
        f"{'median':>7} {'tenth':>6} {'worst':>6} {'stuck':>6}"
    )
    everything: dict[float, list[Visualization]] = {share: [] for share in arguments.shares}
    for layer in arguments.layers:
        asked = questions(network, layer, arguments.units)
        for share in arguments.shares:
            found: list[Visualization] = maximize(network, asked, spread_max_pool=share, **settings)
            everything[share] += found
            reference = everything[arguments.shares[0]][-len(found) :]
            print(f"{layer:<12} {share:>5g} {row(found, reference)}", flush=True)
    for share, found in everything.items():
        print(f"{'all':<12} {share:>5g} {row(found, everything[arguments.shares[0]])}")


if __name__ == "__main__":
    main()
