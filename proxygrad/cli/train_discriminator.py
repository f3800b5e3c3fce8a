"""``proxygrad train-discriminator``: what Langevin sampling of a model is regularized with."""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from proxygrad.cli.arguments import add_models
from proxygrad.cli.training_options import SEED, check_place, whole
from proxygrad.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

    from proxygrad.networks.network import Network
    from proxygrad.training.discriminator import DiscriminatorTraining, Outcome

HELP = "train a discriminator of real and generated images for a model"
EXTRA = "training"
#: The images of scikit-learn on which the bundled model was trained, instead of a folder.
DIGITS = "scikit-learn:digits"
#: The numbers of the recipe.
_NUMBERS = {
    "steps": "of the training; default 500",
    "batch": "images of a step, half of them real; default 64",
    "width": "channels of the first stage; default 32",
    "hidden": "width of the dense layer; default 1024",
    "learning_rate": "of AdaGrad; default 0.0001",
    "weight": "of the discriminator's gradient in the chains, 0 to 1; default 0.5",
    "chains": "chains that are kept; default 256",
    "chain_steps": "what each moves when its turn comes; default 5",
    "restarts": "share of those that start anew before; default 0.1",
    "step_size": "root mean square change of a pixel by a step; default 0.1",
    "noise": "standard deviation of a step's noise; default 0.02",
    "slope": "of the model's rectifiers; default 0.05",
}
_FRACTIONS = ("learning_rate", "weight", "restarts", "step_size", "noise", "slope")

_ADVICE: dict[Outcome, str] = {
    "balanced": "balanced: neither side has won",
    "won": "collapsed: the discriminator tells all generated images, and its gradient says little of what is "
    "wrong with them; try a lower --learning-rate, more --chain-steps, or a smaller --width and --hidden",
    "learned nothing": "collapsed: the discriminator does no better than a coin; try a higher "
    "--learning-rate or more --steps",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of which model, on which images, where to, and the numbers of the recipe."""
    parser.add_argument("--model", required=True, metavar="MODEL", help="name of a model")
    parser.add_argument(
        "--images",
        required=True,
        metavar="DIR",
        help=f"a folder of pictures, or {DIGITS} for the bundled model",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="write it here")
    parser.add_argument("--resize", action="store_true", help="scale and crop pictures of another size")
    parser.add_argument("--layer", metavar="LAYER", help="whose units the chains ascend; default: the output")
    parser.add_argument("--seed", type=SEED, default=0, metavar="N", help="default 0")
    parser.add_argument("--device", default="cpu", help="of torch, default cpu")
    parser.add_argument(
        "--threads",
        type=whole(1, "a number of threads"),
        default=1,
        metavar="N",
        help="of the CPU; default 1, which gives the same file on any number of cores",
    )
    for name, told in _NUMBERS.items():
        kind = float if name in _FRACTIONS else whole(1, "a number")
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=told)
    add_models(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, draw, report, write. Exit status 1 after a collapse; the file is written all the same."""
    import torch

    from proxygrad.models import Catalog
    from proxygrad.spec.models import OUTPUT
    from proxygrad.training.discriminator import DiscriminatorRecipe, TrainingStep, train_discriminator

    out: Path = arguments.out
    check_place(out)
    if out.suffix != ".safetensors":
        raise InvalidRequest(f"--out {str(out)!r}; valid: a name that ends in .safetensors")
    given = {each.name: getattr(arguments, each.name) for each in fields(DiscriminatorRecipe)}
    recipe = DiscriminatorRecipe(**{name: value for name, value in given.items() if value is not None})
    torch.set_num_threads(arguments.threads)
    network = Catalog.from_file(arguments.models).load(arguments.model, arguments.device)
    images = _images(arguments.images, network, arguments.resize)
    print(f"{len(images)} images of {'x'.join(map(str, network.input_shape))}; seed {arguments.seed}")
    started = time.monotonic()

    def progress(step: int, now: TrainingStep) -> None:
        if step % max(1, recipe.steps // 20) == 0:
            told = f"real {now.real:.0%}, generated {now.generated:.0%}"
            elapsed = f"{time.monotonic() - started:.0f} s"
            print(f"step {step:5d} of {recipe.steps}  loss {now.loss:.3f}  {told}  {elapsed}", flush=True)

    training = train_discriminator(
        network, images, arguments.seed, recipe, layer=arguments.layer or OUTPUT, progress=progress
    )
    return _report(training, out)


def _images(source: str, network: Network, resize: bool) -> Tensor:
    if source == DIGITS:
        from proxygrad.training.digits import load_split

        return load_split().images
    from proxygrad.training.pictures import read_pictures

    return read_pictures(Path(source), network.input_shape, resize=resize)


def _report(training: DiscriminatorTraining, out: Path) -> int:
    from proxygrad.training.loss_curve import draw_training

    training.discriminator.save(out)
    curves = out.with_suffix(".png")
    draw_training(training, curves)
    print(_ADVICE[training.outcome])
    print(f"curves: {curves}")
    print(f"{out}  {out.stat().st_size} bytes  sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")
    return 0 if training.outcome == "balanced" else 1
