"""What a stage of the reproduction is, and what it reports: claims, tables and figures.

A stage measures some claims of one paper through public functions of the library. It is seeded, so that a
second run reports the same. It is a module of `benchmarks.reproduction.stages`, named as the stage, with a
module-level ``STAGE``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal, Protocol, cast

from benchmarks.reproduction import stages

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Paper = Literal["ProxyGrad", "LDAM", "GAF", "DeepLIFT"]
Verdict = Literal["holds", "does not hold", "cannot be tested here"]


@dataclass(frozen=True)
class Claim:
    """A row of the page.

    ``statement``: what the paper says, the same words in a quick run as in a whole one. ``measured``: what
    came out, with units. ``verdict``: found by comparing numbers with a bound that the stage states.
    """

    paper: Paper
    statement: str
    measured: str
    verdict: Verdict


@dataclass(frozen=True)
class Table:
    """A table below the claims, with every cell as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A picture. ``name``: the stem of its file; ``draw``: fills an empty figure of matplotlib."""

    name: str
    caption: str
    draw: Callable[[Canvas], object]


@dataclass(frozen=True)
class Report:
    """What a stage found. ``note``: a paragraph of text before the tables."""

    claims: tuple[Claim, ...]
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Context:
    """What a stage is given.

    ``quick``: measure a subset, such that all quick stages together take less than five minutes.
    ``shared``: the folder with weights and data of others, or None where it is not there.
    ``progress``: called as ``progress(done, total, text)`` now and then.
    """

    quick: bool
    shared: Path | None
    progress: Callable[[int, int, str], None]


class Stage(Protocol):
    """Some claims of one paper, and how they are measured.

    ``name``: that of its module. ``needs_shared``: without `Context.shared` it is not run, and its section
    of the page stays as it is.
    """

    name: str
    title: str
    paper: Paper
    needs_shared: bool

    def run(self, context: Context) -> Report:
        """Measure."""


def stage_names() -> list[str]:
    """Every stage, in alphabetical order."""
    return sorted(module.name for module in iter_modules(stages.__path__))


def load_stage(name: str) -> Stage:
    """The stage of that name; raises `ValueError` for an unknown one."""
    if name not in stage_names():
        raise ValueError(f"stage {name!r}; there are {', '.join(stage_names())}")
    return cast(Stage, import_module(f"{stages.__name__}.{name}").STAGE)
