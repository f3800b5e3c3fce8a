"""Steps per second of lanes that share a group: one lane, some, and as many as an engine takes.

To compare two versions, run it in both checkouts in turn, several times, and compare line by line.

    python -m benchmarks.sharing
    python -m benchmarks.sharing --models models.toml --model squeezenet --layers features.12 --size-px 224
"""

from __future__ import annotations

import time

import torch

from benchmarks.asking import network_of, parser_of, question
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import Lane
from proxygrad.spec.settings import AscentSettings

#: Of lanes with two slopes, as a baseline beside each image makes them.
SLOPES = (0.05, 0.0)


def main() -> None:
    """Measure, and print a table."""
    parser = parser_of(__doc__, ["layer3"], (1, "to which all lanes belong"), steps=20)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--presets", nargs="+", default=["max", "natural"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    network = network_of(arguments)
    height, width = (arguments.size_px or side for side in network.input_shape[1:])
    asked = question(network, arguments.layers[0], 0)
    objective = asked.at({layer: network.layer_shape(layer, (height, width)) for layer in asked.layers})
    print(f"{arguments.model}, {arguments.layers[0]}, {height}x{width} px, {arguments.threads} thread(s)")
    print(f"{'preset':<8} {'slopes':>6} {'lanes':>5} {'steps/s':>8}")
    for preset in arguments.presets:
        for slopes in (1, 2):
            for count in arguments.lanes:
                given = {"preset": preset, "steps": 4096}
                lanes = [
                    Lane(
                        AscentSettings.model_validate(
                            {**given, "seed": number, "slope": SLOPES[number % slopes]}
                        ).completed(),
                        objective,
                    )
                    for number in range(count)
                ]
                group = Group(GroupKey.of(network, lanes[0], (height, width)))
                for each in lanes:
                    group.join(each)
                group.step()
                group.step()
                began = time.perf_counter()
                for _ in range(arguments.steps):
                    group.step()
                pace = count * arguments.steps / (time.perf_counter() - began)
                print(f"{preset:<8} {slopes:>6} {count:>5} {pace:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
