"""``proxygrad train``: ways of training compared over several seeds, on a small network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from proxygrad.errors import InvalidRequest

if TYPE_CHECKING:
    from proxygrad.training.methods import Method
    from proxygrad.training.runs import TrainingRecipe, TrainingRun

HELP = "compare ways of training: ReLU, Leaky ReLU, ProxyGrad, SUGAR, gradient activations"
EXTRA = "training"

METHODS = ("relu", "leaky_relu", "proxygrad", "sugar", "gaf")
#: Slopes of a plain ``proxygrad``: from one that hardly shows to the plain linear gradient.
SLOPES = ("0.01", "0.05", "0.2", "0.5")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to train, how, from how many seeds, and where to write."""
    parser.add_argument("--data", default="digits", help="digits (default), mnist or cifar10")
    parser.add_argument("--images", type=Path, metavar="DIR", help="where the files of mnist or cifar10 are")
    parser.add_argument("--network", default="mlp", help="mlp (default), mlp_bn, conv or conv_bn")
    parser.add_argument(
        "--method",
        nargs="+",
        default=METHODS,
        metavar="METHOD",
        help="relu, leaky_relu, proxygrad, sugar, gaf (default: all), with parameters as in proxygrad:0.05, "
        "proxygrad:0.3-0, sugar:gelu, gaf:log@adam, relu*2; the others are compared with the first",
    )
    parser.add_argument(
        "--slopes",
        nargs="+",
        default=SLOPES,
        metavar="S",
        help=f"slopes of a proxygrad without one, or a-b from a to b; default {' '.join(SLOPES)}",
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N - 1; default 5")
    parser.add_argument("--epochs", type=int, default=20, metavar="N", help="default 20")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images of a step; default 64")
    parser.add_argument("--sgd-rate", type=float, metavar="X", help="learning rate of SGD; default 0.05")
    parser.add_argument("--adam-rate", type=float, metavar="X", help="learning rate of Adam; default 0.001")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="JSON of all runs; what it holds is not run again"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing, print the table. Raises `InvalidRequest` and `ModelError`."""
    recipe, methods, seeds = _recipe(arguments), _methods(arguments), arguments.seeds
    if seeds < 1:
        raise InvalidRequest(f"seeds {seeds}: at least 1, and 2 for an interval")
    from tqdm import tqdm

    from proxygrad.training.comparison import compare, table
    from proxygrad.training.datasets import load_dataset

    dataset = load_dataset(recipe.data, arguments.images)
    with tqdm(total=seeds * len(methods), unit="run", leave=False) as bar:

        def on_run(done: int, total: int, run: TrainingRun | None) -> None:
            bar.update(done - bar.n)
            if run is not None:
                bar.set_postfix_str(f"{run.method} {run.accuracy:.2%}")

        comparison = compare(dataset, recipe, methods, range(seeds), arguments.output, on_run)
    counts = f"{len(dataset.labels)} images to train on, {len(dataset.held_out_labels)} held out"
    print(f"{recipe.data}, {recipe.network}, {recipe.epochs} epochs: {counts}; mean and 95 % interval (t)")
    rows = table(comparison.summary(methods))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    return 0


def _recipe(arguments: argparse.Namespace) -> TrainingRecipe:
    from proxygrad.training.runs import TrainingRecipe

    given = {
        name: getattr(arguments, name) for name in TrainingRecipe.model_fields if hasattr(arguments, name)
    }
    try:
        return TrainingRecipe.model_validate(
            {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        flaws = (
            f"{'.'.join(map(str, each['loc']))} {each['input']!r}: {each['msg']}" for each in error.errors()
        )
        raise InvalidRequest("; ".join(flaws)) from error


def _methods(arguments: argparse.Namespace) -> list[Method]:
    """The methods in their order, a plain ``proxygrad`` as one for each slope; each once."""
    from proxygrad.training.methods import Method

    names: list[str] = []
    for name in arguments.method:
        kind, _, optimizer = name.partition("@")
        suffix = f"@{optimizer}" if optimizer else ""
        several = [f"proxygrad:{slope}{suffix}" for slope in arguments.slopes]
        names += several if kind == "proxygrad" else [name]
    return list({method.name: method for method in map(Method.parse, names)}.values())
