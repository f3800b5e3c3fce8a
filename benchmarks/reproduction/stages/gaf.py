"""Gradient activation functions in training: small gradients, large ones, dead units, speed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.reproduction.dead_units import KILLED, revive
from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Table
from benchmarks.reproduction.training_runs import (
    LEFT_OUT,
    Benchmark,
    Measured,
    draw_losses,
    holds,
    measure,
    methods,
    tables,
)
from proxygrad.optim.gradient_activations import gaf
from proxygrad.spec.settings import GAF_ALPHA, GAF_BETA
from proxygrad.training.architectures import build
from proxygrad.training.comparison import Interval
from proxygrad.training.datasets import Dataset, load_dataset
from proxygrad.training.methods import Method
from proxygrad.training.runs import TrainingRecipe

#: Epochs are counted until the training loss is below these; between epochs its logarithm is a straight line.
REACHED = (0.2, 0.05)
EPOCHS, SEEDS = 12, 5
#: A quarter of `proxygrad train`'s: at 0.05, twice the rate (the control) does not train from some seeds.
RATE = 0.0125


@dataclass(frozen=True)
class _Stage:
    name: str = "gaf"
    title: str = "Gradient activation functions in training"
    paper: Paper = "GAF"
    needs_shared: bool = False

    def run(self, context: Context) -> Report:
        dataset = load_dataset("digits")
        ways = methods("relu", "gaf:atan", "relu*2", "gaf:tanh", "gaf:log", "relu@adam", "gaf:atan@adam")
        chosen = ways[:3] if context.quick else ways
        recipe = TrainingRecipe(data="digits", epochs=EPOCHS, sgd_rate=RATE)
        (mlp,) = measure(context, dataset, [Benchmark(recipe, chosen, SEEDS)])
        claims = (
            *_shape_of_gradients(dataset),
            _revival(dataset),
            _speed(mlp, "SGD with GAF learns faster than SGD at the same rate.", "gaf:atan", "relu"),
            _speed(
                mlp,
                "GAF is faster than a higher rate alone, SGD at αβ = 2 times the rate.",
                "gaf:atan",
                "relu*2",
            ),
            _speed(mlp, "Adam with GAF learns faster than Adam.", "gaf:atan@adam", "relu@adam"),
            Claim(
                "GAF",
                "GAF raises the accuracy of ResNet and other networks on CIFAR-10, CIFAR-100 and ImageNet.",
                "no such data, and no GPU",
                "cannot be tested here",
            ),
        )
        losses = draw_losses(mlp, [each.name for each in chosen])
        return Report(
            claims,
            (_epochs_table(mlp), *tables([mlp])),
            (Figure("losses", "Training loss by epoch", losses),),
            _note(),
        )


def _note() -> str:
    return (
        f"Ten hidden layers of 64 units, without batch norm; α = {GAF_ALPHA:g}, β = {GAF_BETA:g}. Faster: a "
        f"lower training loss in the last of {EPOCHS} epochs, as the mean ratio over {SEEDS} seeds, paired, "
        "with its 95 % interval (t of the logarithms). relu*2 is SGD at twice the rate, by which small steps "
        "grow under GAF, too."
    )


def _shape_of_gradients(dataset: Dataset) -> tuple[Claim, Claim]:
    """On the gradient of a fresh network, all weights together."""
    network = build("mlp", (1, 8, 8), 10, Method.parse("relu").rectifier, seed=0)
    torch.autograd.backward(functional.cross_entropy(network(dataset.images), dataset.labels))
    weights = [weight.grad.flatten() for weight in network.parameters() if weight.grad is not None]
    raw: Tensor = torch.cat(weights)
    raw = raw[raw != 0].double()
    bent = gaf("atan")(raw)
    small = raw.abs() < raw.abs().median()
    ratio = (bent / raw)[small]
    largest, bound = float(gaf("atan")(1e3 * raw).abs().max()), GAF_ALPHA * math.pi / 2
    grown = float((bent.abs() > raw.abs()).double().mean())
    return (
        Claim(
            "GAF",
            "GAF enlarges small gradients.",
            f"atan: the smaller half of the entries that are not 0 grows {float(ratio.min()):.3f} to "
            f"{float(ratio.max()):.3f} times; {grown:.1%} of all grow",
            holds(float(ratio.min()) > 1),
        ),
        Claim(
            "GAF",
            "GAF bounds large gradients.",
            f"atan, gradients times 1000: at most {largest:.4f}, bound απ/2 = {bound:.4f}",
            holds(largest <= bound),
        ),
    )


def _revival(dataset: Dataset) -> Claim:
    found = [
        revive(dataset, Method.parse(name), 0, 5, rate)
        for name, rate in (("gaf:atan", RATE), ("gaf:log@adam", 1e-3))
    ]
    moved = sum(each.moved or 0 for each in found)
    return Claim(
        "GAF",
        "GAF revives no dead unit, for GAF(0) = 0 (ours, of their formula).",
        f"SGD and Adam: of {KILLED} dead units each, {moved} moved and "
        f"{sum(each.alive or 0 for each in found)} came back",
        holds(moved == 0 and all(each.moved is not None for each in found)),
    )


def _speed(measured: Measured, statement: str, bent: str, plain: str) -> Claim:
    """Whether the last epoch's loss is lower, over the seeds; left out where a method was not run."""
    names = {each.name for each in measured.benchmark.methods}
    if not {bent, plain} <= names:
        return Claim("GAF", statement, LEFT_OUT, "cannot be tested here")
    pairs = zip(*(measured.comparison.of(Method.parse(name)) for name in (bent, plain)), strict=True)
    ratio = Interval.of([math.log(with_gaf.losses[-1] / without.losses[-1]) for with_gaf, without in pairs])
    half = ratio.half or 0.0
    low, high = math.exp(ratio.mean - half), math.exp(ratio.mean + half)
    shown = f"loss {math.exp(ratio.mean):.2f} times that of {plain} ({low:.2f} to {high:.2f})"
    return Claim("GAF", statement, shown, holds(high < 1))


def _until(losses: list[float], reached: float) -> float:
    """Epochs until the loss is below ``reached``; all of them where it never is."""
    for epoch, (before, after) in enumerate(pairwise(losses), start=1):
        if after < reached <= before:
            return epoch + math.log(before / reached) / math.log(before / after)
    return float(len(losses))


def _epochs_table(measured: Measured) -> Table:
    rows = []
    for method in measured.benchmark.methods:
        runs = measured.comparison.of(method)
        epochs = [[_until(run.losses, reached) for run in runs] for reached in REACHED]
        cells = (f"{fmean(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in epochs)
        rows.append((method.name, *cells, f"{fmean(run.losses[-1] for run in runs):.4f}"))
    columns = ("method", *(f"below {reached:g}" for reached in REACHED), "loss in the last epoch")
    return Table("Epochs until the training loss is so low: mean and range over seeds", columns, tuple(rows))


STAGE = _Stage()
