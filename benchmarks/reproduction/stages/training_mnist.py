"""Training with the proxy's gradient, on 8,000 images of MNIST."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.reproduction.stage import Context, Figure, Paper, Report
from benchmarks.reproduction.training_runs import (
    LEFT_OUT,
    Benchmark,
    Measured,
    draw_differences,
    draw_gradients,
    gains,
    measure,
    methods,
    tables,
)
from proxygrad.training.datasets import load_dataset
from proxygrad.training.runs import TrainingRecipe

SEEDS = 5
#: Without batch norm: at 0.05 slopes of 0.2 diverge.
RATE = 0.0125


@dataclass(frozen=True)
class _Stage:
    name: str = "training_mnist"
    title: str = "Training with the proxy's gradient: MNIST"
    paper: Paper = "ProxyGrad"
    needs_shared: bool = True

    def run(self, context: Context) -> Report:
        measured: list[Measured] = []
        if not context.quick:
            if context.shared is None:
                raise FileNotFoundError("the folder with data/mnist is not there")
            dataset = load_dataset("mnist", context.shared / "data" / "mnist")
            measured = measure(context, dataset, _benchmarks())
        figures: tuple[Figure, ...] = ()
        if measured:
            shown = ["relu", "proxygrad:0.05", "proxygrad:0.2", "sugar:bsilu"]
            figures = (
                Figure("differences", "Accuracy minus that of ReLU, MNIST", draw_differences(measured)),
                Figure("gradients", "Gradient norms by depth", draw_gradients(measured[1], shown)),
            )
        return Report(
            gains(measured, "MNIST"),
            tables(measured),
            figures,
            "Every fifth of MNIST's 10,000 test images is held out. Networks, pairs, columns as for digits."
            if measured
            else LEFT_OUT,
        )


def _benchmarks() -> list[Benchmark]:
    slopes = ("proxygrad:0.05", "proxygrad:0.2")
    ways = ("relu", "leaky_relu", *slopes, "proxygrad:0.2-0", "sugar:bsilu", "gaf:atan")
    return [
        Benchmark(
            TrainingRecipe(data="mnist", network="mlp", epochs=4, sgd_rate=RATE), methods(*ways), SEEDS
        ),
        Benchmark(
            TrainingRecipe(data="mnist", network="conv", epochs=2, sgd_rate=RATE),
            methods("relu", *slopes, *ways[5:]),
            SEEDS,
        ),
        Benchmark(TrainingRecipe(data="mnist", network="conv_bn", epochs=2), methods("relu", *slopes), SEEDS),
    ]


STAGE = _Stage()
