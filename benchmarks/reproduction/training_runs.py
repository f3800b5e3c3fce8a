"""What the stages on training share: runs with progress, verdicts, tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.reproduction.stage import Claim, Context, Table, Verdict
from proxygrad.training.comparison import Comparison, Interval, Summary, compare, table
from proxygrad.training.datasets import Dataset
from proxygrad.training.methods import Method
from proxygrad.training.runs import TrainingRecipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class Benchmark:
    """One network on one data set. ``methods``: the first is what the others are compared with."""

    recipe: TrainingRecipe
    methods: tuple[Method, ...]
    seeds: int

    @property
    def title(self) -> str:
        """As tables call it: ``digits, mlp``."""
        return f"{self.recipe.data}, {self.recipe.network}"


@dataclass(frozen=True)
class Measured:
    """A benchmark with its runs, and one summary for each method."""

    benchmark: Benchmark
    comparison: Comparison
    rows: tuple[Summary, ...]

    def row(self, name: str) -> Summary:
        """The summary of a method."""
        return next(row for row in self.rows if row.method == name)


def methods(*names: str) -> tuple[Method, ...]:
    """Methods by name."""
    return tuple(Method.parse(name) for name in names)


def measure(context: Context, dataset: Dataset, benchmarks: Sequence[Benchmark]) -> list[Measured]:
    """Run them one after the other; ``context.progress`` counts runs."""
    total = sum(len(each.methods) * each.seeds for each in benchmarks)
    found, before = list[Measured](), 0
    for each in benchmarks:
        done = before

        def on_run(count: int, _: int, run: object, done: int = done, title: str = each.title) -> None:
            context.progress(done + count, total, title)

        comparison = compare(dataset, each.recipe, each.methods, range(each.seeds), None, on_run)
        found.append(Measured(each, comparison, tuple(comparison.summary(each.methods))))
        before += len(each.methods) * each.seeds
    return found


def holds(condition: bool) -> Verdict:
    """The verdict of a claim that was measured."""
    return "holds" if condition else "does not hold"


#: What a quick run says of a claim that takes whole trainings.
LEFT_OUT = "left out of the quick run"


def gains(measured: Sequence[Measured], data: str) -> tuple[Claim, Claim]:
    """Whether slopes gain accuracy over ReLU; ``measured`` is empty in a quick run.

    Some intervals leave 0 by chance. So some gain only where one does at the confidence that Bonferroni's
    correction asks for: 1 - 5 % over the number of comparisons.
    """
    compared = [(each, row) for each in measured for row in each.rows if row.method.startswith("proxygrad")]
    count = len(compared)
    clear = [(each, row) for each, row in compared if row.difference.excludes_zero]
    above = [(each, row) for each, row in clear if row.difference.mean > 0]
    below = len(clear) - len(above)
    sure = sum(_sure(each, row, count) for each, row in above)
    some = ""
    if compared:
        where, best = max(compared, key=lambda found: found[1].difference.mean)
        some = (
            f"{len(above)} of {count} slopes and networks above ReLU, {below} below; {sure} above with "
            f"Bonferroni's correction; best {best.method} ({where.benchmark.title}) "
            f"{best.difference.percent(signed=True)} points"
        )
    return (
        Claim(
            "ProxyGrad",
            f"Training with the proxy's gradient gains accuracy on some benchmarks ({data}).",
            some if compared else LEFT_OUT,
            holds(sure > 0) if compared else "cannot be tested here",
        ),
        Claim(
            "ProxyGrad",
            f"It gains none on others ({data}).",
            f"{count - len(clear)} of {count} within their interval of ReLU, {below} below"
            if compared
            else LEFT_OUT,
            holds(count > len(above)) if compared else "cannot be tested here",
        ),
    )


def _sure(measured: Measured, row: Summary, comparisons: int) -> bool:
    differences = measured.comparison.differences(Method.parse(row.method), measured.benchmark.methods[0])
    return Interval.of(differences, 1 - 0.05 / comparisons).excludes_zero


def tables(measured: Sequence[Measured]) -> tuple[Table, ...]:
    """One table for each benchmark."""
    found = []
    for each in measured:
        header, *rows = table(each.rows)
        recipe = each.benchmark.recipe
        rates = f"SGD at {recipe.sgd_rate:g}, Adam at {recipe.adam_rate:g}"
        title = f"{each.benchmark.title}, {recipe.epochs} epochs, {rates}"
        found.append(Table(title, header, tuple(rows)))
    return tuple(found)


def draw_differences(measured: Sequence[Measured]) -> Callable[[Canvas], None]:
    """Accuracy minus that of the first method, with intervals, side by side for each benchmark."""

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(4.2 * len(measured), 0.6 + 0.3 * max(len(each.rows) for each in measured))
        for axes, each in zip(canvas.subplots(1, len(measured), squeeze=False)[0], measured, strict=True):
            rows = [row for row in each.rows[1:] if not row.diverged]
            places = range(len(rows))
            axes.errorbar(
                [100 * row.difference.mean for row in rows],
                places,
                xerr=[100 * (row.difference.half or 0) for row in rows],
                fmt="o",
                color="tab:blue",
                capsize=3,
            )
            axes.axvline(0, color="gray", linewidth=0.8)
            axes.set_yticks(places, [row.method for row in rows])
            axes.invert_yaxis()
            axes.set_title(each.benchmark.title)
            axes.set_xlabel(f"points of accuracy minus {each.rows[0].method}")

    return draw


def draw_gradients(measured: Measured, names: Sequence[str]) -> Callable[[Canvas], None]:
    """Gradient norms by depth before training, the mean over seeds, on a logarithmic scale."""

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(6.0, 3.6)
        axes = canvas.subplots()
        for name in names:
            runs = measured.comparison.of(Method.parse(name))
            norms = [
                sum(column) / len(runs) for column in zip(*(run.gradient_norms for run in runs), strict=True)
            ]
            axes.plot(range(1, len(norms) + 1), norms, marker="o", markersize=3, label=name)
        axes.set_yscale("log")
        axes.set_xlabel("layer, from the input")
        axes.set_ylabel("gradient norm of its weights")
        axes.set_title(f"{measured.benchmark.title}, before training")
        axes.legend(fontsize="small")

    return draw


def draw_losses(measured: Measured, names: Sequence[str]) -> Callable[[Canvas], None]:
    """Training loss by epoch, the mean over seeds, on a logarithmic scale."""

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(6.0, 3.6)
        axes = canvas.subplots()
        for name in names:
            runs = [run for run in measured.comparison.of(Method.parse(name)) if not run.diverged]
            means = [sum(column) / len(runs) for column in zip(*(run.losses for run in runs), strict=True)]
            axes.plot(range(1, len(means) + 1), means, marker="o", markersize=3, label=name)
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss")
        axes.set_title(measured.benchmark.title)
        axes.legend(fontsize="small")

    return draw
