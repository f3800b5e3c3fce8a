"""Slope "auto" with several starts against plain activation maximization, at equal lane-steps.

All get the same number of lane-steps for each unit (``--budget``): plain ascent four seeds of a quarter each,
of which the best counts; ``auto`` eight starts of which the best goes on; and slope 0 under that same search.
Of each group of units: how many each leaves stuck, and the ratios of achieved activations on the units that
plain ascent moves. No unit is left out.

    python -m benchmarks.search --network resnet20 --shared ../shared
    python -m benchmarks.search --network squeezenet --shared ../shared --units 6
    python -m benchmarks.search --network digits --one-lane
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

import proxygrad as pg
from benchmarks.trained_networks import digits, resnet20, squeezenet
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.objectives.base import Objective
from proxygrad.objectives.units import UNIT_OBJECTIVES
from proxygrad.spec.settings import TRIAL_STEPS

STARTS, SEEDS = 8, 4
#: A unit has moved when it is above its start by more than this part.
MOVED = 1e-4

#: By network: layer and objective of each group.
GROUPS = {
    "digits": [("layer2", "channel"), ("layer3", "neuron"), ("fc", "logit")],
    "resnet20": [
        ("layer2.1", "channel"),
        ("layer3.1", "neuron"),
        ("layer3.2", "channel"),
        ("linear", "logit"),
    ],
    "squeezenet": [
        ("features.7", "channel"),
        ("features.9", "neuron"),
        ("features.12", "channel"),
        ("output", "logit"),
    ],
    "resnet18": [("layer2", "channel"), ("layer3", "neuron"), ("layer4", "channel"), ("fc", "logit")],
    "vgg11": [("features.10", "channel"), ("features.15", "neuron"), ("features.20", "channel")],
}


def network_of(name: str, shared: Path) -> pg.Network:
    """One by name; those of torchvision with random weights, seed 0, for 64 px."""
    if name == "digits":
        return digits()
    if name in ("resnet20", "squeezenet"):
        return resnet20(shared) if name == "resnet20" else squeezenet(shared)
    torch.manual_seed(0)
    module = getattr(import_torchvision().models, name)(weights=None).eval()
    return pg.Network(module, input_shape=(3, 64, 64), mean=0.5, std=0.25)


def objectives_of(network: pg.Network, layer: str, kind: str, count: int, offset: int) -> list[Objective]:
    """``count`` units of a layer, evenly spread."""
    units = network.info.layer(layer).units
    chosen = sorted({(offset + number * units // count) % units for number in range(min(count, units))})
    return [UNIT_OBJECTIVES[kind](layer=layer, unit=unit) for unit in chosen]  # type: ignore[index]


def best(
    network: pg.Network, objectives: list[Objective], images: int, **settings: Any
) -> list[pg.Visualization]:
    """The best of ``images`` of each objective."""
    found = pg.maximize(network, objectives, images=images, preset="max", progress=False, **settings)
    rows = [found[begin : begin + images] for begin in range(0, len(found), images)]
    return [max(row, key=lambda each: each.activation) for row in rows]


def moved(plain: pg.Visualization) -> bool:
    """Whether plain ascent raised the unit."""
    rise = plain.activation - plain.start_activation
    return rise > MOVED * max(abs(plain.activation), abs(plain.start_activation))


def ratios(own: list[pg.Visualization], plain: list[pg.Visualization]) -> list[float]:
    """Of achieved activations, in rising order, on the units that plain ascent moves above 0."""
    pairs = zip(own, plain, strict=True)
    return sorted(a.activation / b.activation for a, b in pairs if moved(b) and b.activation > 0)


def searched(network: pg.Network, objectives: list[Objective], budget: int) -> list[list[pg.Visualization]]:
    """At ``budget`` lane-steps a unit: plain restarts, plain ascent under the search, "auto"."""
    steps = budget - (STARTS - 1) * TRIAL_STEPS
    trial = {"starts": STARTS, "trial_steps": TRIAL_STEPS, "steps": steps}
    plain = {"slope": 0.0, "gaf": "none"}
    return [
        best(network, objectives, SEEDS, starts=1, steps=budget // SEEDS, **plain),
        best(network, objectives, 1, slope=0.0, **trial),
        best(network, objectives, 1, slope="auto", **trial),
    ]


def columns(found: list[pg.Visualization], plain: list[pg.Visualization]) -> str:
    """Stuck units; the median and the lowest ratio, and how many are ahead."""
    each = ratios(found, plain)
    ahead = f"{sum(ratio >= 1 for ratio in each)}/{len(each)}"
    low, middle = (each[0], median(each)) if each else (math.nan, math.nan)
    return f"{sum(not moved(one) for one in found):>5} {middle:>7.3f} {low:>6.3f} {ahead:>6}"


def one_lane(network: pg.Network, objectives: list[Objective], steps: int) -> str:
    """One start, slope 0 against "auto": of each unit that plain moves the median ratio over the seeds."""

    def climb(slope: float | Literal["auto"]) -> pg.VisualizationList:
        settings: dict[str, Any] = {"preset": "max", "starts": 1, "steps": steps, "progress": False}
        return pg.maximize(network, objectives, slope=slope, images=SEEDS, **settings)

    plain, auto = climb(0.0), climb("auto")
    middles = []
    for begin in range(0, len(plain), SEEDS):
        pairs = list(zip(plain[begin : begin + SEEDS], auto[begin : begin + SEEDS], strict=True))
        each = [b.activation / a.activation for a, b in pairs if moved(a) and a.activation > 0]
        middles += [median(each)] if each else []
    stuck = [sum(not moved(one) for one in found) for found in (plain, auto)]
    low, middle = (min(middles), median(middles)) if middles else (math.nan, math.nan)
    return f"{len(plain):>5} {stuck[0]:>5} {stuck[1]:>5} {middle:>7.3f} {low:>6.3f}"


def main() -> None:
    """Measure and print a row for each group."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=tuple(GROUPS), default="digits")
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="the folder of trained networks"
    )
    parser.add_argument("--units", type=int, default=12, help="of each group")
    parser.add_argument("--offset", type=int, default=1, help="of the first unit")
    parser.add_argument("--budget", type=int, default=384, help="lane-steps a unit")
    parser.add_argument("--groups", nargs="+", type=int, help="numbers of the groups; default all")
    parser.add_argument("--one-lane", action="store_true", help="one start, at 96 steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = network_of(arguments.network, arguments.shared)
    if arguments.one_lane:
        print(f"{'group':<22} images: plain and auto stuck, ratio: median, lowest of a unit's medians")
    else:
        print(f"{'group':<22} units stuck | the same search, slope 0 | auto: stuck, median, lowest, ahead")
    for number, (layer, kind) in enumerate(GROUPS[arguments.network]):
        if arguments.groups and number not in arguments.groups:
            continue
        objectives = objectives_of(network, layer, kind, arguments.units, arguments.offset)
        begin, name = time.monotonic(), f"{layer} {kind}"
        if arguments.one_lane:
            text = one_lane(network, objectives, arguments.budget // SEEDS)
        else:
            plain, *others = searched(network, objectives, arguments.budget)
            stuck = sum(not moved(each) for each in plain)
            text = f"{len(plain):>5} {stuck:>5} | " + " | ".join(columns(found, plain) for found in others)
        print(f"{name:<22} {text}  ({time.monotonic() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
