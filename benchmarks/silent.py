"""How many of the units that plain ascent leaves behind does `stuck` call so?

The networks of `benchmarks/activations.py` (the bundled architecture with another activation, trained
plainly), their first units as channels, central neurons and logits, maximized with slope 0 and 0.05. A unit
is *left behind* when plain ascent ends below a tenth of the best of both, that best being above 0. Beside it:
how many of these `proxygrad.engine.rendering.is_stuck` names, with its own bound on the gradient and with
another, and how many that were not left behind.

    python -m benchmarks.silent
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from benchmarks.activations import ACTIVATIONS, OBJECTIVES, variant
from benchmarks.asking import question
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import FADED, Lane
from proxygrad.engine.rendering import first_image, is_stuck, measure
from proxygrad.models.digits import CLASSES, INPUT_SHAPE
from proxygrad.networks.network import Network
from proxygrad.spec.settings import AscentSettings
from proxygrad.training.digits import load_split

SIZE = (INPUT_SHAPE[1], INPUT_SHAPE[2])
BOUNDS = (FADED, 0.1)


def climb(network: Network, slope: float, units: int, steps: int) -> list[tuple[Lane, float, float]]:
    """Each lane with its activation on the start and on the best image, exactly."""
    found = []
    for layer, kind in OBJECTIVES:
        count = len(CLASSES) if kind == "logit" else units
        shapes = {layer: network.layer_shape(layer, SIZE)}
        lanes = [
            Lane(
                AscentSettings(preset="max", starts=1, gaf="none", steps=steps, slope=slope).completed(),
                question(network, layer, unit, kind).at(shapes),
            )
            for unit in range(count)
        ]
        group = Group(GroupKey.of(network, lanes[0], SIZE))
        for lane in lanes:
            group.join(lane)
        while group.lanes:
            group.step()
        for lane in lanes:
            assert lane.image is not None
            start = measure(network, lane.objective, first_image(network, lane))
            found.append((lane, start, measure(network, lane.objective, lane.image)))
    return found


def main() -> None:
    """Train, climb and print a row for each activation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = {"ReLU": nn.ReLU, **ACTIVATIONS}
    parser.add_argument(
        "--activations", nargs="+", default=["ReLU", "Hardswish", "GELU", "SiLU", "Mish"], choices=choices
    )
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split = load_split()
    heads = "".join(f"{f'named at {bound:g}':>15} {'others':>7}" for bound in BOUNDS)
    print(f"{'activation':<11} {'units':>6} {'left behind':>12} {heads}")
    for name in arguments.activations:
        network = Network(variant(choices[name], split, arguments.epochs, seed=0), INPUT_SHAPE)
        plain, sloped = (climb(network, slope, arguments.units, arguments.steps) for slope in (0.0, 0.05))
        bests = [max(own[2], other[2]) for own, other in zip(plain, sloped, strict=True)]
        left = [best > 0 and own[2] < best / 10 for own, best in zip(plain, bests, strict=True)]
        columns = ""
        for bound in BOUNDS:
            named = [is_stuck(network, *own, bound) for own in plain]
            right = sum(a and b for a, b in zip(named, left, strict=True))
            columns += f"{right:>15} {sum(named) - right:>7}"
        print(f"{name:<11} {len(plain):>6} {sum(left):>12} {columns}", flush=True)


if __name__ == "__main__":
    main()
