"""How far apart are the images of a lane alone and of the same lane among others?

Batches of different size round differently, and each step feeds the next. For each preset and number of
steps, all units are made as one batch and then each alone: the largest and the mean difference of pixels, in
levels of an 8-bit image, and the largest difference of activations.

    python -m benchmarks.lanes
    python -m benchmarks.lanes --models models.toml --model squeezenet --size-px 112 --layers features.7
"""

from __future__ import annotations

from typing import get_args

import torch

from benchmarks.asking import network_of, parser_of, question
from proxygrad import maximize
from proxygrad.spec.settings import Preset


def main() -> None:
    """Measure, and print a table."""
    parser = parser_of(__doc__, ["layer3"], (8, "in one batch"), steps=None)
    parser.add_argument("--lengths", type=int, nargs="+", default=[12, 64], help="numbers of steps")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    network = network_of(arguments)
    objectives = [
        question(network, layer, unit) for layer in arguments.layers for unit in range(arguments.units)
    ]
    print(f"{arguments.model}, {len(objectives)} units, float32")
    print(f"{'preset':<8} {'steps':>5} {'levels: most':>12} {'mean':>6} {'activation':>11}")
    for preset in get_args(Preset):
        for steps in arguments.lengths:
            settings = {"preset": preset, "steps": steps, "size_px": arguments.size_px}
            together = maximize(network, objectives, precision="float32", **settings)
            apart = [maximize(network, [each], precision="float32", **settings)[0] for each in objectives]
            pixels = (
                torch.stack([a.image - b.image for a, b in zip(together, apart, strict=True)]).abs() * 255
            )
            activations = [
                abs(a.activation / b.activation - 1)
                for a, b in zip(together, apart, strict=True)
                if b.activation
            ]
            print(
                f"{preset:<8} {steps:>5} {float(pixels.max()):>12.1f} {float(pixels.mean()):>6.2f} "
                f"{max(activations):>10.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
