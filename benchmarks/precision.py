"""What do steps in bfloat16 cost? The same units, seeds and steps in float32 and in bfloat16.

For each layer and objective, over ``--seeds``: the median and the least ratio of achieved activations,
bfloat16 to float32, over the units that float32 moved; in brackets the same for float32 from other seeds,
which is what chance alone does; and how many units were stuck, float32 / bfloat16, and lost: moved in float32
and stuck in bfloat16. Activations are those of the final image, in float32 on the network itself.

    python -m benchmarks.precision
    python -m benchmarks.precision --models models.toml --model squeezenet --size-px 112 --steps 64 \
        --layers features.7 features.12
"""

from __future__ import annotations

from benchmarks.asking import network_of, parser_of, question, ratios, shown
from proxygrad import Network, Objective, Visualization, maximize
from proxygrad.precision import Precision
from proxygrad.spec import OBJECTIVES


def objectives(network: Network, layer: str, units: int) -> dict[str, list[Objective]]:
    """The first units of a layer: as logits, or as channels and as central neurons."""
    info = network.layer(layer)
    kinds = OBJECTIVES[info.kind] if info.grid else OBJECTIVES[info.kind][:1]
    numbers = range(min(units, info.units))
    return {kind: [question(network, info.name, unit, kind) for unit in numbers] for kind in kinds}


def columns(found: list[Visualization], base: list[Visualization]) -> str:
    """Median and least ratio."""
    return " ".join(shown(ratios(found, base)))


def row(exact: list[Visualization], coarse: list[Visualization], other: list[Visualization]) -> str:
    """One line of the table."""
    lost = sum(theirs.stuck and not ours.stuck for ours, theirs in zip(exact, coarse, strict=True))
    stuck = f"{sum(ours.stuck for ours in exact)}/{sum(theirs.stuck for theirs in coarse)}"
    return f"{len(exact):>6} {columns(coarse, exact)}  ({columns(other, exact)}) {stuck:>8} {lost:>5}"


def main() -> None:
    """Measure and print one row for each layer and objective."""
    units = 24, "the first N units of each layer"
    parser = parser_of(__doc__, ["layer1", "layer2", "layer3", "fc"], units, steps=128)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--preset", default="max")
    arguments = parser.parse_args()

    network = network_of(arguments)

    def run(asked: list[Objective], precision: Precision, first_seed: int = 0) -> list[Visualization]:
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
