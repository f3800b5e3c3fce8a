"""What do steps in bfloat16 cost? The same units, seeds and steps in float32 and in bfloat16.

For each layer and objective, over ``--seeds``: the median and the least ratio of achieved activations,
bfloat16 to float32, over the units that float32 moved; in brackets the same for float32 from other seeds,
which is what chance alone does; and how many units were stuck, float32 / bfloat16, and lost: moved in float32
and stuck in bfloat16. Activations are those of the final image, in float32 on the network itself.

    python benchmarks/precision.py
    python benchmarks/precision.py --models models.toml --model squeezenet --size-px 112 --steps 64 \
        --layers features.7 features.12
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from proxygrad import Catalogue, Channel, Logit, Network, Neuron, Outcome, maximize
from proxygrad.objectives import Objective
from proxygrad.precision import Precision


def objectives(network: Network, layer: str, units: int) -> dict[str, list[Objective]]:
    """The first units of a layer: as logits, or as channels and as central neurons."""
    info = network.layer(layer)
    numbers = range(min(units, info.units))
    if not info.grid:
        return {"logit": [Logit(unit, layer) for unit in numbers]}
    return {
        "channel": [Channel(layer, unit) for unit in numbers],
        "neuron": [Neuron(layer, unit) for unit in numbers],
    }


def ratios(found: list[Outcome], base: list[Outcome]) -> str:
    """Median and least, over the units that ``base`` moved."""
    each = [
        ours.achieved_activation / theirs.achieved_activation
        for ours, theirs in zip(found, base, strict=True)
        if not theirs.stuck and theirs.achieved_activation > 0
    ]
    return f"{median(each):>6.3f} {min(each):>6.3f}" if each else f"{'-':>6} {'-':>6}"


def row(exact: list[Outcome], coarse: list[Outcome], other: list[Outcome]) -> str:
    """One line of the table."""
    lost = sum(theirs.stuck and not ours.stuck for ours, theirs in zip(exact, coarse, strict=True))
    stuck = f"{sum(ours.stuck for ours in exact)}/{sum(theirs.stuck for theirs in coarse)}"
    return f"{len(exact):>6} {ratios(coarse, exact)}  ({ratios(other, exact)}) {stuck:>8} {lost:>5}"


def main() -> None:
    """Measure and print one row for each layer and objective."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--layers", nargs="+", default=["layer1", "layer2", "layer3", "fc"])
    parser.add_argument("--units", type=int, default=24, help="the first N units of each layer")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--preset", default="max")
    parser.add_argument("--size-px", type=int)
    arguments = parser.parse_args()

    network = Catalogue.from_file(arguments.models).load(arguments.model)

    def run(asked: list[Objective], precision: Precision, first_seed: int = 0) -> list[Outcome]:
        given = {"steps": arguments.steps, "size_px": arguments.size_px, "preset": arguments.preset}
        found = [
            outcome
            for seed in range(first_seed, first_seed + arguments.seeds)
            for outcome in maximize(network, asked, precision=precision, seed=seed, **given)
        ]
        assert {outcome.dtype for outcome in found} == {precision}, "not what was asked for"
        return found

    print(f"{arguments.model}, preset {arguments.preset}, {arguments.steps} steps: bfloat16 / float32")
    print(
        f"{'layer':<14} {'objective':<9} {'images':>6} {'median':>6} {'least':>6}  (other seeds) stuck lost"
    )
    for layer in arguments.layers:
        for name, asked in objectives(network, layer, arguments.units).items():
            exact, coarse = run(asked, "float32"), run(asked, "bfloat16")
            other = run(asked, "float32", first_seed=1000)
            print(f"{layer:<14} {name:<9} {row(exact, coarse, other)}", flush=True)


if __name__ == "__main__":
    main()
