"""Reports of earlier runs, as JSON and PNG in a folder for each stage, kept while their code is the same."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from benchmarks.reproduction.stage import Claim, Report, Table

ROOT = Path(__file__).parents[2]
#: Packages whose code decides what a stage reports.
_OWN = ("proxygrad", "benchmarks", "examples")
_DEPENDENCIES = ("torch", "torchvision", "numpy")
#: The pictures of the page: dots per inch at matplotlib's size in inches.
_DPI = 110


@dataclass(frozen=True)
class DrawnFigure:
    """A picture that has been drawn: ``file`` lies in the stage's folder of the cache."""

    file: str
    caption: str


@dataclass(frozen=True)
class CachedReport:
    """A report with its pictures drawn, and how it came about.

    ``key``: of `key_of`; ``minutes``: of processor time.
    """

    key: str
    claims: tuple[Claim, ...]
    tables: tuple[Table, ...]
    figures: tuple[DrawnFigure, ...]
    note: str
    date: str
    machine: str
    minutes: float

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The reverse of `asdict`."""
        tables = [
            Table(each["title"], tuple(each["columns"]), tuple(map(tuple, each["rows"])))
            for each in content["tables"]
        ]
        built = {
            "claims": tuple(Claim(**each) for each in content["claims"]),
            "tables": tuple(tables),
            "figures": tuple(DrawnFigure(**each) for each in content["figures"]),
        }
        return cls(**{**content, **built})


def machine() -> str:
    """What numbers and minutes depend on beside the code."""
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {version('torch')}"


def load(folder: Path, key: str) -> CachedReport | None:
    """The report in ``folder``; None where there is none, or where other code made it."""
    try:
        report = CachedReport.from_json(json.loads((folder / "report.json").read_text()))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    drawn = all((folder / figure.file).is_file() for figure in report.figures)
    return report if report.key == key and drawn else None


def store(folder: Path, report: CachedReport) -> None:
    """Write the report last and at once, so that a run that is killed leaves none that is half done."""
    unfinished = folder / "report.json.part"
    unfinished.write_text(json.dumps(asdict(report), indent=1))
    unfinished.replace(folder / "report.json")


def draw(report: Report, folder: Path) -> tuple[DrawnFigure, ...]:
    """Draw the figures of a report into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    if not report.figures:
        return ()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    for figure in report.figures:
        canvas = Figure(layout="constrained")
        FigureCanvasAgg(canvas)
        figure.draw(canvas)
        # Without matplotlib's version in it, the same picture has the same bytes.
        canvas.savefig(folder / f"{figure.name}.png", dpi=_DPI, metadata={"Software": None})
    return tuple(DrawnFigure(f"{figure.name}.png", figure.caption) for figure in report.figures)


def key_of(module: str, *given: bool) -> str:
    """A hash of a stage's module and of all of this repository that it imports, directly or not.

    ``given``: what else decides about the report.
    """
    digest = hashlib.sha256()
    for path in sorted(_sources(module)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    versions = [f"{name} {version(name)}" for name in _DEPENDENCIES]
    digest.update(json.dumps([*given, *versions]).encode())
    return digest.hexdigest()


def _sources(module: str) -> set[Path]:
    """The files of a module and of what it imports, wherever in its code, with the weights beside them."""
    found, waiting = set[Path](), {module}
    while waiting:
        path = _file_of(waiting.pop())
        if path is None or path in found:
            continue
        found |= {path, *path.parent.glob("*.safetensors")}
        waiting |= set(_imports(path))
    return found


def _file_of(name: str) -> Path | None:
    """The file of a module or package; None where ``name`` is an attribute of one."""
    path = ROOT.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((each for each in candidates if each.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of this repository that the code imports; some of them are attributes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in _OWN)
