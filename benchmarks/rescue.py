"""How many units does plain activation maximization leave at exactly zero, and does ProxyGrad move them?

For each layer and objective: the same units, seed, steps and step size with slope 0 and with ``--slope``,
all in one process. Prints how many units plain ascent left stuck, how many of those came alive, and the
median ratio of achieved activations on the units that plain ascent did move (1.00 = no difference).

    python -m benchmarks.rescue
    python -m benchmarks.rescue --models models.toml --model squeezenet --size-px 112 \
        --layers features.7 features.10 features.12
"""

from __future__ import annotations

from benchmarks.asking import network_of, parser_of, ratios, shown
from proxygrad import Engine, Network, Result, Spec


def visualize(engine: Engine, network: Network, spec: Spec, units: list[int], slope: float) -> list[Result]:
    """One result for each unit, all lanes of one group."""
    asked = [spec.model_copy(update={"unit": unit, "slope": slope}) for unit in units]
    return [ticket.result().result for ticket in [engine.submit(network, each) for each in asked]]


def row(plain: list[Result], proxy: list[Result]) -> str:
    """Stuck, revived and the median ratio, as columns."""
    pairs = list(zip(plain, proxy, strict=True))
    stuck = [ours for theirs, ours in pairs if theirs.stuck]
    revived = sum(not ours.stuck and ours.achieved_activation > ours.start_activation for ours in stuck)
    return f"{len(pairs):>5} {len(stuck):>12} {revived:>8} {shown(ratios(proxy, plain), digits=2)[0]}"


def main() -> None:
    """Measure and print one row for each layer and objective."""
    units, steps = (16, "the first N units of each layer"), Spec.model_fields["steps"].default
    parser = parser_of(__doc__, ["layer1", "layer2", "layer3"], units, steps)
    parser.add_argument("--slope", type=float, default=0.05)
    arguments = parser.parse_args()

    network = network_of(arguments)
    print(f"{arguments.model}, slope 0 against {arguments.slope:g}, {arguments.steps} steps, seed 0")
    print(f"{'layer':<16} {'objective':<9} {'units':>5} {'plain stuck':>12} {'revived':>8} {'ratio':>6}")
    with Engine(max_lanes=arguments.units) as engine:
        for layer in arguments.layers:
            numbers = list(range(min(arguments.units, network.info.layer(layer).units)))
            for objective in ("channel", "neuron"):
                spec = Spec.model_validate(
                    {
                        "model": arguments.model,
                        "layer": layer,
                        "unit": 0,
                        "objective": objective,
                        "steps": arguments.steps,
                        "size_px": arguments.size_px,
                        "preset": "max",
                        "starts": 1,
                        "gaf": "none",
                    }
                )
                plain = visualize(engine, network, spec, numbers, 0.0)
                proxy = visualize(engine, network, spec, numbers, arguments.slope)
                print(f"{layer:<16} {objective:<9} {row(plain, proxy)}", flush=True)


if __name__ == "__main__":
    main()
