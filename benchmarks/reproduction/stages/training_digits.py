"""Training with the proxy's gradient, on scikit-learn's digits."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from benchmarks.reproduction.dead_units import KILLED, revive
from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Table
from benchmarks.reproduction.training_runs import (
    Benchmark,
    draw_differences,
    draw_gradients,
    gains,
    holds,
    measure,
    methods,
    tables,
)
from proxygrad.training.architectures import build
from proxygrad.training.datasets import Dataset, load_dataset
from proxygrad.training.methods import Method
from proxygrad.training.runs import TrainingRecipe, gradient_norms

SEEDS = 5
#: A quarter of `proxygrad train`'s rate for networks without batch norm: at 0.05 slopes diverge from some
#: seeds.
DEEP_RATE = 0.0125
SLOPES = ("proxygrad:0.01", "proxygrad:0.05", "proxygrad:0.2", "proxygrad:0.2-0")
#: With the learning rates of their optimizers.
REVIVERS = (
    ("relu", DEEP_RATE),
    ("leaky_relu:0.01", DEEP_RATE),
    ("proxygrad:0.2", DEEP_RATE),
    ("sugar:bsilu", DEEP_RATE),
    ("relu@adam", 1e-3),
    ("proxygrad:0.05@adam", 1e-3),
)


@dataclass(frozen=True)
class _Stage:
    name: str = "training_digits"
    title: str = "Training with the proxy's gradient: digits"
    paper: Paper = "ProxyGrad"
    needs_shared: bool = False

    def run(self, context: Context) -> Report:
        dataset = load_dataset("digits")
        reach = _reach(dataset)
        revived, revival_table = _revival(dataset, REVIVERS[::2] if context.quick else REVIVERS)
        measured = [] if context.quick else measure(context, dataset, _benchmarks())
        claims = (
            reach,
            revived,
            *gains(measured, "digits"),
            Claim(
                "ProxyGrad",
                "ResNet-18 on CIFAR-10 reaches .9227 ± .0013 over 5 seeds (the author's baseline).",
                "no such data, and no GPU",
                "cannot be tested here",
            ),
        )
        figures: tuple[Figure, ...] = ()
        if measured:
            shown = ["relu", *SLOPES[1:3], "sugar:bsilu", "sugar:nelu"]
            figures = (
                Figure("differences", "Accuracy minus that of ReLU, digits", draw_differences(measured)),
                Figure("gradients", "Gradient norms by depth", draw_gradients(measured[0], shown)),
            )
        return Report(
            claims,
            (revival_table, *tables(measured)),
            figures,
            _note(),
        )


def _note() -> str:
    return (
        "Networks: mlp, ten hidden layers of 64; conv, five convolutions; _bn with batch norm. All methods "
        "of a seed start from the same weights and see the same batches; differences are paired, with 95 % "
        f"intervals (t, {SEEDS} seeds). Zeros: share of a rectifier's outputs that are 0. Dead: units above "
        "0 on no training image. First/last: gradient norm of the first layer over that of the last, before "
        "training. sugar is SUGAR (arXiv 2505.22074)."
    )


def _benchmarks() -> list[Benchmark]:
    few = methods("relu", "leaky_relu", *SLOPES[1:], "sugar:bsilu")
    many = methods(
        *("relu", "leaky_relu", *SLOPES, "sugar:bsilu", "sugar:nelu", "gaf:atan"),
        *("relu@adam", "proxygrad:0.05@adam", "gaf:atan@adam"),
    )
    return [
        Benchmark(TrainingRecipe(data="digits", network="mlp", epochs=12, sgd_rate=DEEP_RATE), many, SEEDS),
        Benchmark(TrainingRecipe(data="digits", network="mlp_bn", epochs=12), few, SEEDS),
        Benchmark(TrainingRecipe(data="digits", network="conv", epochs=10, sgd_rate=DEEP_RATE), few, SEEDS),
    ]


def _reach(dataset: Dataset) -> Claim:
    """Gradient norms of the first layer on the same fresh networks, with and without the slope."""
    plain, proxy = methods("relu", "proxygrad:0.2")
    ratios = []
    for seed in range(SEEDS):
        network = build("mlp", (1, 8, 8), dataset.classes, plain.rectifier, seed)
        first = [
            gradient_norms(network, dataset.images, dataset.labels, each, 0.0)[0] for each in (plain, proxy)
        ]
        ratios.append(first[1] / first[0])
    return Claim(
        "ProxyGrad",
        "Gradients are sparse; with the proxy's slope more of them reaches the first layer.",
        f"slope 0.2, ten layers: norm {fmean(ratios):.2f} times that of ReLU, {min(ratios):.2f} to "
        f"{max(ratios):.2f} over {SEEDS} seeds",
        holds(min(ratios) > 1),
    )


def _revival(dataset: Dataset, revivers: tuple[tuple[str, float], ...]) -> tuple[Claim, Table]:
    found = {name: revive(dataset, Method.parse(name), 0, 10, rate) for name, rate in revivers}
    plain, proxy = found["relu"], found["proxygrad:0.2"]
    claim = Claim(
        "ProxyGrad",
        "Dead units stay dead with ReLU, and come back with the proxy's slope.",
        f"of {KILLED} dead units after 10 epochs: ReLU {plain.alive}, slope 0.2 {proxy.alive}",
        holds(plain.alive == 0 and (proxy.alive or 0) > 0),
    )
    title = f"{KILLED} dead units of the fifth of ten layers, after 10 epochs"
    rows = tuple((each.method, str(each.moved), str(each.alive)) for each in found.values())
    return claim, Table(title, ("method", "moved", "alive"), rows)


STAGE = _Stage()
