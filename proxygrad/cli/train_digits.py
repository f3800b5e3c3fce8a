"""``proxygrad train-digits``: the bundled network again, from its data and a seed."""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import replace
from pathlib import Path

from proxygrad.cli.training_options import SEED, check_place, whole

HELP = "retrain the bundled network and report its held-out accuracy"
EXTRA = "training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, from which seed, for how long."""
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="write the weights here (safetensors)")
    parser.add_argument(
        "--seed", type=SEED, default=0, metavar="N", help="default 0, that of the bundled file"
    )
    parser.add_argument(
        "--epochs",
        type=whole(1, "a number of epochs"),
        metavar="N",
        help="default: those of the bundled file",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, report, write. Raises `ModelError` without scikit-learn, or when FILE cannot be written."""
    from proxygrad.training import digits as train_digits

    out: Path | None = arguments.out
    if out is not None:
        check_place(out)
    recipe = train_digits.Recipe()
    if arguments.epochs is not None:
        recipe = replace(recipe, epochs=arguments.epochs)
    split = train_digits.load_split()
    train_count, held_out_count = len(split.labels), len(split.held_out_labels)
    print(f"{train_count} images to train on, {held_out_count} held out; seed {arguments.seed}")
    started = time.monotonic()

    def progress(epoch: int, loss: float) -> None:
        elapsed_s = time.monotonic() - started
        print(f"epoch {epoch:3d} of {recipe.epochs}  loss {loss:.3f}  {elapsed_s:.0f} s", flush=True)

    trained = train_digits.train(split, arguments.seed, recipe, progress)
    correct = round(trained.accuracy * held_out_count)
    print(f"held-out accuracy {trained.accuracy:.2%} ({correct} of {held_out_count})")
    if out is not None:
        train_digits.save(trained.network, out)
        print(f"{out}  sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")
    return 0
