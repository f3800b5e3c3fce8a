"""What does it cost to say what else is worth knowing about an image, and is it still true?

Each row is one objective at 224 px, on one thread: the seconds of `proxygrad.engine.evaluation.evaluate`
(robust activation, rank and class probabilities), beside the same as it was read at first, nine images
through the network itself up to its logits, and beside one exact pass of one image to the target (`measure`,
of which there are three in a delivery). In turns, one of each; medians. Then how far the values are apart:
the robust activation's mean and deviation as a share of the mean, class probabilities absolutely, and ranks
in places, the most over ``--images`` random images. Weights are random but for SqueezeNet's, when
``--squeezenet`` names them.

    python -m benchmarks.delivery --squeezenet squeezenet1_0.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed import NORMALIZATION, SIDE_PX, build, in_turns, machine
from proxygrad import Channel, Logit, Network, Neuron, Objective
from proxygrad.engine.evaluation import Evaluation, _rank, _robust, class_probabilities, evaluate, shifted
from proxygrad.engine.rendering import measure

QUESTIONS: tuple[tuple[str, Objective], ...] = (
    ("squeezenet1_0", Channel("features.5", 20)),
    ("squeezenet1_0", Channel("features.7", 20)),
    ("squeezenet1_0", Neuron("features.12", 20, (6, 6))),
    ("squeezenet1_0", Logit("output", 20)),
    ("resnet18", Channel("layer2", 20)),
    ("resnet18", Channel("layer4", 20)),
    ("resnet18", Logit("output", 20)),
)


def through(network: Network, objective: Objective, image: Tensor, seed: int) -> Evaluation:
    """The same of the network itself, in one pass of all nine images to its logits."""
    logits = next(layer.name for layer in network.layers if layer.kind == "logits")
    images = torch.stack([image, *shifted(image, seed)])
    with torch.no_grad():
        read = network.read(images, tuple(dict.fromkeys((*objective.layers, logits))))
    rank, rank_of = _rank(objective, read)
    return Evaluation(
        rank, rank_of, class_probabilities(read[logits][0], network), _robust(objective(read)[1:])
    )


def apart(found: Evaluation, exact: Evaluation) -> tuple[float, float, int]:
    """Robust activation, class probabilities and rank: how far two evaluations are from each other."""
    ours, theirs = found.robust_activation, exact.robust_activation
    if ours is None or theirs is None or found.rank is None or exact.rank is None:
        raise ValueError(f"{found} or {exact} is incomplete")
    robust = max(abs(ours.mean - theirs.mean), abs(ours.std - theirs.std)) / (abs(theirs.mean) or 1)
    pairs = zip(found.class_probabilities or (), exact.class_probabilities or (), strict=True)
    classes = max((abs(one.probability - other.probability) for one, other in pairs), default=0.0)
    return robust, classes, abs(found.rank - exact.rank)


def row(network: Network, objective: Objective, images: Tensor, rounds: int) -> str:
    """Times and differences, as columns."""
    runs = {
        "through": lambda: through(network, objective, images[0], 0),
        "evaluate": lambda: evaluate(network, objective, images[0], 0),
        "measure": lambda: measure(network, objective, images[0]),
    }
    taken = in_turns(runs, rounds)
    off = [
        apart(evaluate(network, objective, image, 0), through(network, objective, image, 0))
        for image in images
    ]
    robust, classes, ranks = (max(column) for column in zip(*off, strict=True))
    times = "".join(f"{1e3 * taken[name]:>10.0f}" for name in runs)
    return (
        f"{times} {taken['through'] / taken['evaluate']:>7.1f} {robust:>9.0e} {classes:>9.0e} {ranks:>6.0f}"
    )


def main() -> None:
    """Measure, and print a row for each question."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--squeezenet", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    columns = "".join(f"{name:>10}" for name in ("through", "evaluate", "measure"))
    print(f"{'':<42}{columns} {'times':>7} {'robust':>9} {'classes':>9} {'rank':>6}")
    shape = (arguments.images, 3, SIDE_PX, SIDE_PX)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    networks: dict[str, Network] = {}
    for name, objective in QUESTIONS:
        if name not in networks:
            module = build(name, arguments.squeezenet)
            networks[name] = Network(module, (3, SIDE_PX, SIDE_PX), *NORMALIZATION)
        label = f"{name} {objective.layers[0]}, {type(objective).__name__.lower()}"
        print(f"{label:<42}{row(networks[name], objective, images, arguments.rounds)}", flush=True)


if __name__ == "__main__":
    main()
