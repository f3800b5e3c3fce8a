"""docs/reproduction.md: a section for each stage, replaced one by one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import get_args

from benchmarks.reproduction.cache import CachedReport
from benchmarks.reproduction.stage import Claim, Paper, Stage

PAPERS: dict[Paper, str] = {
    "ProxyGrad": "Linse, Barth, Martinetz: *Rethinking Activation Maximization*, IJCNN 2024 "
    "([arXiv 2410.16958](https://arxiv.org/abs/2410.16958))",
    "LDAM": "Jiang, Chan, Zhang, Canny: Langevin dynamics activation maximization, 2018 "
    "([arXiv 1812.04604](https://arxiv.org/abs/1812.04604))",
    "GAF": "Liu, Chen, Du, Jin, Shang: gradient activation functions, 2021 "
    "([arXiv 2107.04228](https://arxiv.org/abs/2107.04228))",
    "DeepLIFT": "Shrikumar, Greenside, Kundaje: *Learning Important Features Through Propagating Activation "
    "Differences*, 2017 ([arXiv 1704.02685](https://arxiv.org/abs/1704.02685))",
}
_INTRODUCTION = """\
What four papers claim, in our words, measured with this library. `make reproduce` writes this page; it runs
only those stages whose code has changed since they ran last. Each section names the command that writes it
alone. `make reproduce ARGS="--quick --check"` measures a part of the claims in a few minutes, and fails where
a verdict is no longer the one below.

A verdict is *holds* where the numbers are within the bound that the row states, *does not hold* where they
are not, and *cannot be tested here* where data, networks or hardware are missing.
"""
_SECTION = re.compile(r"<!-- stage: (?P<paper>\w+)/(?P<name>\w+) -->\n.*?<!-- end -->\n", re.DOTALL)


def write(page: Path, reports: Sequence[tuple[Stage, CachedReport]], cache: Path) -> None:
    """Replace the sections of these stages, keep the others, and copy the pictures beside the page.

    ``cache``: the folder with one folder for each stage. Pictures go to ``images/reproduction/<stage>/``.
    """
    kept = page.read_text() if page.exists() else ""
    sections = {(found["paper"], found["name"]): found.group() for found in _SECTION.finditer(kept)}
    for stage, report in reports:
        sections = {key: text for key, text in sections.items() if key[1] != stage.name}
        sections[stage.paper, stage.name] = section(stage, report)
        _copy_pictures(stage, report, cache, page.parent / "images" / "reproduction")
    parts = [f"# Reproduction\n\n{_filled(_INTRODUCTION)}\n"]
    for paper in get_args(Paper):
        own = [text for (of, _), text in sorted(sections.items()) if of == paper]
        if own:
            parts += [f"## {paper}\n\n{_filled(PAPERS[paper])}.\n", *own]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts))


def section(stage: Stage, report: CachedReport) -> str:
    """Title, claims, tables and pictures of one stage, between two comments that name it."""
    parts = [f"<!-- stage: {stage.paper}/{stage.name} -->\n### {stage.title}"]
    parts.append(_table(("claim", "measured", "verdict"), [_cells(claim) for claim in report.claims]))
    if report.note:
        parts.append(_filled(report.note))
    for table in report.tables:
        parts += [f"**{table.title}**", _table(table.columns, table.rows)]
    for figure in report.figures:
        parts.append(f"![{figure.caption}](images/reproduction/{stage.name}/{figure.file})")
    command = f'`make reproduce ARGS="--stage {stage.name}"`'
    took = f"{report.minutes:.1f} minutes of one core on {report.date}, {report.machine}"
    parts.append(_filled(f"{command}: {took}."))
    return "\n\n".join(parts) + "\n\n<!-- end -->\n"


def differences(page: Path, claims: Sequence[Claim]) -> list[str]:
    """Claims whose verdict is not the one on the page; those that could not be tested are left out."""
    rows = page.read_text().splitlines() if page.exists() else []
    found = []
    for claim in claims:
        statement, _, verdict = map(_escaped, _cells(claim))
        if claim.verdict == "cannot be tested here":
            continue
        stated = [row for row in rows if row.startswith(f"| {statement} | ")]
        if not any(row.endswith(f" | {verdict} |") for row in stated):
            what = "has another verdict" if stated else "has no such claim: run make reproduce"
            found.append(f"{claim.statement} {claim.measured}: {claim.verdict}; {page.name} {what}")
    return found


def _filled(text: str) -> str:
    """Paragraphs with lines as long as a page may have."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(fill(each, 118, break_long_words=False, break_on_hyphens=False) for each in paragraphs)


def _cells(claim: Claim) -> tuple[str, str, str]:
    return claim.statement, claim.measured, f"**{claim.verdict}**"


def _escaped(text: str) -> str:
    """Text of one line as it stands in a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _copy_pictures(stage: Stage, report: CachedReport, cache: Path, images: Path) -> None:
    shutil.rmtree(images / stage.name, ignore_errors=True)
    for figure in report.figures:
        (images / stage.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cache / stage.name / figure.file, images / stage.name / figure.file)
