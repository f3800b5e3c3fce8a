"""Which step size reaches most, and how much time do the presets take?

For each of ``--layers``, ``--units`` units spread evenly over the layer (channels of a map, logits, entries
of a vector), each from every one of ``--seeds``. Prints what each step size reaches against the first one and
against the best of all: the median ratio of achieved activations, the one that a tenth of the images fall
below, and the worst; and on how many images it reached more than the first. Then the seconds that one image
takes under each preset, alone, in alternation, as a part of what ``max`` takes.

    python -m benchmarks.presets
    python -m benchmarks.presets --models models.toml --model squeezenet --size-px 112 \
        --layers features.7 features.12 output
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any, get_args

import torch

from benchmarks.asking import network_of, parser_of, question
from proxygrad import Network, Objective, maximize
from proxygrad.spec.settings import Preset


def questions(network: Network, layers: list[str], units: int) -> list[Objective]:
    """``units`` units of each layer, evenly spread."""
    infos = [network.layer(layer) for layer in layers]
    return [
        question(network, info.name, index * info.units // units)
        for info in infos
        for index in range(min(units, info.units))
    ]


def reached(
    network: Network, asked: list[Objective], seeds: list[int], settings: dict[str, Any]
) -> list[float]:
    """The achieved activation of every unit from every seed."""
    return [
        outcome.activation for seed in seeds for outcome in maximize(network, asked, seed=seed, **settings)
    ]


def row(found: list[float], reference: list[float], best: list[float]) -> str:
    """Images, on how many more was reached; ratios to the reference and to the best: median, tenth, worst."""
    kept = [index for index, value in enumerate(reference) if value > 0 and best[index] > 0]
    more = sum(found[index] > reference[index] for index in kept)
    columns = [f"{len(kept):>6} {more:>5}"]
    for other in (reference, best):
        ratios = sorted(found[index] / other[index] for index in kept)
        columns.append(f"{median(ratios):>7.3f} {ratios[len(ratios) // 10]:>6.3f} {ratios[0]:>6.3f}")
    return "  ".join(columns)


def seconds(
    network: Network, asked: Objective, settings: dict[str, Any], repeats: int
) -> dict[Preset, float]:
    """The median time of one image alone, the presets taking turns."""
    presets: tuple[Preset, ...] = get_args(Preset)
    times: dict[Preset, list[float]] = {preset: [] for preset in presets}
    for _ in range(repeats):
        for preset in presets:
            began = time.perf_counter()
            maximize(network, asked, preset=preset, **settings)
            times[preset].append(time.perf_counter() - began)
    return {preset: median(taken) for preset, taken in times.items()}


def main() -> None:
    """Measure, and print both tables."""
    parser = parser_of(__doc__, ["layer2", "layer3", "fc"], (8, "of each layer"), steps=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--step-sizes", type=float, nargs="+", default=[0.1, 0.05, 0.2, 0.4])
    parser.add_argument("--preset", choices=get_args(Preset), default="max")
    parser.add_argument("--repeats", type=int, default=3, help="of each timing")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    network = network_of(arguments)
    asked = questions(network, arguments.layers, arguments.units)
    settings: dict[str, Any] = {"preset": arguments.preset, "size_px": arguments.size_px}
    settings |= {} if arguments.steps is None else {"steps": arguments.steps}
    sizes = arguments.step_sizes
    print(f"{arguments.model}, preset {arguments.preset}, {len(asked)} units, seeds {arguments.seeds}")
    print(f"{'':>26}{f'to {sizes[0]:g}':>21}{'to the best':>23}")
    ratios = f"{'median':>7} {'tenth':>6} {'worst':>6}"
    print(f"{'step size':>10} {'images':>6} {'more':>5}  {ratios}  {ratios}")
    found = [reached(network, asked, arguments.seeds, {**settings, "step_size": each}) for each in sizes]
    best = [max(values) for values in zip(*found, strict=True)]
    for step_size, values in zip(sizes, found, strict=True):
        print(f"{step_size:>10g} {row(values, found[0], best)}", flush=True)

    taken = seconds(network, asked[0], {"size_px": arguments.size_px}, arguments.repeats)
    for preset, duration in taken.items():
        print(f"{preset:<8} {duration:7.2f} s  {duration / taken['max']:.3f} of max")


if __name__ == "__main__":
    main()
