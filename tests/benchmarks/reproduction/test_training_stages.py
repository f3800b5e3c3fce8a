"""The stages on training: what they measure in seconds, and how they come to a verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.reproduction import cache, page
from benchmarks.reproduction.dead_units import KILLED, revive
from benchmarks.reproduction.stage import Context, Figure, Report
from benchmarks.reproduction.stages import gaf, training_digits, training_mnist
from benchmarks.reproduction.training_runs import (
    Benchmark,
    Measured,
    draw_differences,
    draw_gradients,
    draw_losses,
    gains,
    methods,
    tables,
)
from proxygrad.training.comparison import Comparison
from proxygrad.training.datasets import Dataset, load_dataset
from proxygrad.training.methods import Method
from proxygrad.training.runs import TrainingRecipe, TrainingRun

pytestmark = pytest.mark.engine

PAGE = Path(__file__).parents[3] / "docs" / "reproduction.md"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    pytest.importorskip("sklearn", reason="the images come with scikit-learn")
    return load_dataset("digits")


def measured(**accuracies: list[float]) -> Measured:
    """A comparison with these accuracies, ``relu`` first."""
    names = {"relu": "relu", "low": "proxygrad:0.05", "high": "proxygrad:0.2"}
    runs = [
        TrainingRun(
            method=names[name],
            seed=seed,
            accuracy=share,
            accuracies=[share],
            losses=[1.0, 0.1],
            gradient_norms=[1.0, 2.0],
            gradient_norms_end=[1.0, 2.0],
            sparsity=[0.5],
            dead_units=[0],
            units=[4],
            diverged=False,
            seconds=1.0,
        )
        for name, shares in accuracies.items()
        for seed, share in enumerate(shares)
    ]
    chosen = methods(*(names[name] for name in accuracies))
    recipe = TrainingRecipe(data="digits", epochs=1)
    comparison = Comparison(recipe=recipe, runs=runs)
    return Measured(Benchmark(recipe, chosen, 3), comparison, tuple(comparison.summary(chosen)))


def test_a_gain_is_one_that_chance_does_not_give() -> None:
    plain, gain, none, loss = [0.5, 0.7, 0.9], [0.51, 0.71, 0.911], [0.5, 0.71, 0.89], [0.4, 0.6, 0.79]
    one = measured(relu=plain, low=gain)
    assert [claim.verdict for claim in gains([one], "x")] == ["holds", "does not hold"]
    assert "1 of 1 slopes" in gains([one], "x")[0].measured
    nothing = measured(relu=plain, low=none, high=loss)
    assert [claim.verdict for claim in gains([nothing], "x")] == ["does not hold", "holds"]
    assert gains([nothing], "x")[1].measured == "1 of 2 within their interval of ReLU, 1 below"
    slight = measured(relu=plain, low=[0.51, 0.72, 0.912])
    assert [claim.verdict for claim in gains([slight], "x")] == ["holds", "does not hold"]
    mixed = [slight, *[nothing] * 4]  # one of nine: such a thing happens by chance
    assert [claim.verdict for claim in gains(mixed, "x")] == ["does not hold", "holds"]
    assert [claim.verdict for claim in gains([], "x")] == ["cannot be tested here"] * 2


def test_tables_and_pictures_show_what_was_measured(tmp_path: Path) -> None:
    found = measured(relu=[0.5, 0.7, 0.9], low=[0.51, 0.71, 0.91])
    (shown,) = tables([found])
    assert shown.rows[1][:4] == ("proxygrad:0.05", "3", "71.00 ± 49.68", "+1.00 ± 0.00")
    figures = (
        Figure("differences", "", draw_differences([found, found])),
        Figure("gradients", "", draw_gradients(found, ["relu", "proxygrad:0.05"])),
        Figure("losses", "", draw_losses(found, ["relu"])),
    )
    for drawn in cache.draw(Report((), (), figures), tmp_path):
        with Image.open(tmp_path / drawn.file) as picture:
            assert len(set(picture.convert("L").tobytes())) > 20


@pytest.mark.parametrize(
    ("name", "rate", "moved", "alive"),
    [
        ("relu", 0.0125, (0, 0), (0, 0)),
        ("gaf:atan", 0.0125, (0, 0), (0, 0)),
        ("proxygrad:0.2", 0.0125, (KILLED, KILLED), (0, KILLED)),
    ],
)
def test_dead_units_move_only_where_a_gradient_reaches_them(
    name: str, rate: float, moved: tuple[int, int], alive: tuple[int, int], digits: Dataset
) -> None:
    found = revive(digits, Method.parse(name), 0, 1, rate)
    assert found.moved is not None
    assert found.alive is not None
    assert moved[0] <= found.moved <= moved[1]
    assert alive[0] <= found.alive <= alive[1]


def test_the_slope_brings_more_gradient_to_the_first_layer_and_gaf_bends_as_it_says(digits: Dataset) -> None:
    assert training_digits._reach(digits).verdict == "holds"
    assert [claim.verdict for claim in gaf._shape_of_gradients(digits)] == ["holds", "holds"]


def test_a_quick_run_leaves_trainings_of_mnist_out() -> None:
    report = training_mnist.STAGE.run(Context(True, None, lambda done, total, text: None))
    assert {claim.verdict for claim in report.claims} == {"cannot be tested here"}


@pytest.mark.soak
@pytest.mark.parametrize("stage", [gaf.STAGE, training_digits.STAGE])
def test_quick_runs_have_the_verdicts_of_the_page(stage: gaf._Stage | training_digits._Stage) -> None:
    report = stage.run(Context(True, None, lambda done, total, text: None))
    tested = [claim for claim in report.claims if claim.verdict != "cannot be tested here"]
    assert len(tested) >= 2
    assert page.differences(PAGE, tested) == []
