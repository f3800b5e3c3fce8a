"""Methods compared over several seeds: runs in a file that an interrupted comparison resumes, and a table.

Intervals are Student's t at 95 %. Runs of one seed share weights and batches, so the difference to the first
method is taken seed by seed, and its interval is that of the paired differences.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from pydantic import ValidationError

from proxygrad.errors import InvalidRequest, ModelError
from proxygrad.spec.base import Frozen
from proxygrad.training.datasets import Dataset
from proxygrad.training.methods import Method
from proxygrad.training.runs import TrainingRecipe, TrainingRun, train

CONFIDENCE = 0.95


class Interval(Frozen):
    """A mean and half the width of its confidence interval; None of a single value."""

    mean: float
    half: float | None

    @classmethod
    def of(cls, values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
        """Of at least one value."""
        if len(values) < 2:
            return cls(mean=values[0], half=None)
        from scipy.stats import t

        quantile = float(t.ppf((1 + confidence) / 2, len(values) - 1))
        return cls(mean=fmean(values), half=quantile * stdev(values) / math.sqrt(len(values)))

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval has one sign."""
        return self.half is not None and abs(self.mean) > self.half

    def percent(self, signed: bool = False) -> str:
        """In percent: ``97.1 ± 0.3``."""
        shown = f"{100 * self.mean:{'+' if signed else ''}.2f}"
        return shown if self.half is None else f"{shown} ± {100 * self.half:.2f}"


class Summary(Frozen):
    """One method over all seeds. ``difference``: of the accuracy to that of the first method, seed by seed.

    ``dead``: the share of dead units; ``sparsity``: the mean over rectifiers; both of runs that did not
    diverge, None where all did. ``first_layer``: the gradient norm of the first layer before training,
    divided by the last layer's; its mean over seeds.
    """

    method: str
    seeds: int
    accuracy: Interval
    difference: Interval
    sparsity: float | None
    dead: float | None
    first_layer: float
    diverged: int


class Comparison(Frozen):
    """The recipe and its runs, in the order in which they ended."""

    recipe: TrainingRecipe
    runs: list[TrainingRun]

    def of(self, method: Method) -> list[TrainingRun]:
        """The runs of a method, by seed."""
        return sorted((run for run in self.runs if run.method == method.name), key=lambda run: run.seed)

    def differences(self, method: Method, base: Method) -> list[float]:
        """Accuracy minus that of ``base``, for each seed that both have."""
        others = {run.seed: run.accuracy for run in self.of(base)}
        return [run.accuracy - others[run.seed] for run in self.of(method) if run.seed in others]

    def summary(self, methods: Sequence[Method]) -> list[Summary]:
        """One row for each method; the first is what the others are compared with.

        Each difference is over the seeds that both have. Raises `InvalidRequest` where there are none.
        """
        return [self._row(method, methods[0]) for method in methods]

    def _row(self, method: Method, base: Method) -> Summary:
        runs = self.of(method)
        differences = self.differences(method, base)
        if not differences:
            raise InvalidRequest(f"no run of {method.name!r} to compare")
        whole = [run for run in runs if not run.diverged]
        return Summary(
            method=method.name,
            seeds=len(runs),
            accuracy=Interval.of([run.accuracy for run in runs]),
            difference=Interval.of(differences),
            sparsity=fmean(fmean(run.sparsity) for run in whole) if whole else None,
            dead=fmean(sum(run.dead_units) / sum(run.units) for run in whole) if whole else None,
            first_layer=fmean(run.gradient_norms[0] / run.gradient_norms[-1] for run in runs),
            diverged=sum(run.diverged for run in runs),
        )


def compare(
    dataset: Dataset,
    recipe: TrainingRecipe,
    methods: Sequence[Method],
    seeds: Sequence[int],
    path: Path | None = None,
    on_run: Callable[[int, int, TrainingRun | None], None] = lambda done, total, run: None,
) -> Comparison:
    """Train every method from every seed, seed by seed; runs that ``path`` holds are not repeated.

    ``path`` is written after each run, as JSON. ``on_run`` is called with the number of runs that are done,
    that of all, and the last one (None at the start). Raises `InvalidRequest` where ``path`` holds runs of
    another recipe, and `ModelError` where it cannot be read or written.
    """
    found = _read(path, recipe) if path is not None and path.exists() else Comparison(recipe=recipe, runs=[])
    wanted = [(method, seed) for seed in seeds for method in methods]
    done = {(run.method, run.seed) for run in found.runs}
    missing = [(method, seed) for method, seed in wanted if (method.name, seed) not in done]
    on_run(len(wanted) - len(missing), len(wanted), None)
    for number, (method, seed) in enumerate(missing, start=len(wanted) - len(missing) + 1):
        run = train(dataset, recipe, method, seed)
        found = Comparison(recipe=recipe, runs=[*found.runs, run])
        if path is not None:
            _write(path, found)
        on_run(number, len(wanted), run)
    return found


def table(rows: Sequence[Summary]) -> list[tuple[str, ...]]:
    """A header and one row for each method, as text."""
    header = (
        "method",
        "seeds",
        "accuracy %",
        f"minus {rows[0].method}",
        "zeros %",
        "dead %",
        "first/last ‖g‖",
    )
    lines: list[tuple[str, ...]] = [header]
    for index, row in enumerate(rows):
        difference = row.difference.percent(signed=True) if index else ""
        name = row.method + (f" ({row.diverged} diverged)" if row.diverged else "")
        shares = [f"{100 * each:.1f}" if each is not None else "" for each in (row.sparsity, row.dead)]
        cells = (row.accuracy.percent(), difference, *shares, f"{row.first_layer:.3g}")
        lines.append((name, str(row.seeds), *cells))
    return lines


def _read(path: Path, recipe: TrainingRecipe) -> Comparison:
    try:
        found = Comparison.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(f"{path} holds no comparison to go on from: {str(error).splitlines()[0]}") from error
    if found.recipe != recipe:
        mine, theirs = recipe.model_dump(), found.recipe.model_dump()
        other = [
            f"{name} {theirs[name]} instead of {mine[name]}" for name in mine if mine[name] != theirs[name]
        ]
        raise InvalidRequest(f"{path} holds runs of another recipe: {', '.join(other)}; choose another file")
    return found


def _write(path: Path, comparison: Comparison) -> None:
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(json.dumps(comparison.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror or error}") from error
