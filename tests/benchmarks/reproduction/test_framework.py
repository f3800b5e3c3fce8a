"""The runner, its cache and the page, with a stage of four lines."""

from __future__ import annotations

import json
import multiprocessing
import queue
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.reproduction import cache, page, runner
from benchmarks.reproduction.stage import (
    Claim,
    Context,
    Figure,
    Paper,
    Report,
    Stage,
    Table,
    load_stage,
    stage_names,
)
from tests.support.eventually import until

pytestmark = pytest.mark.engine

CLAIMS = (
    Claim("GAF", "|a| is at least 1.", "2.00 | of 3", "holds"),
    Claim("GAF", "b falls.", "it rises", "does not hold"),
    Claim("GAF", "c is large.", "no data", "cannot be tested here"),
)


@dataclass
class Small:
    """A stage that counts its runs."""

    name: str = "small"
    title: str = "A small stage"
    paper: Paper = "GAF"
    needs_shared: bool = False
    claims: tuple[Claim, ...] = CLAIMS
    runs: list[bool] = field(default_factory=list)

    def run(self, context: Context) -> Report:
        self.runs.append(context.quick)
        context.progress(1, 2, "half")
        drawing = Figure("line", "A line", lambda canvas: canvas.subplots().plot([0, 1]))
        return Report(self.claims, (Table("T", ("x", "y"), (("1", "2"),)),), (drawing,), "Some words.")


def report_of(stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> cache.CachedReport:
    monkeypatch.setattr(runner, "load_stage", lambda name: stage)
    told: queue.Queue[tuple[str, float, str]] = queue.Queue()
    report = runner.run_stage(stage.name, folder, "key", True, None, told)
    assert told.get_nowait() == (stage.name, 0.5, "half")
    return report


def test_a_report_comes_back_from_the_cache_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_of(Small(), tmp_path, monkeypatch)
    assert cache.load(tmp_path / "small", "key") == report
    assert (report.claims, report.note) == (CLAIMS, "Some words.")
    with Image.open(tmp_path / "small" / "line.png") as picture:
        assert picture.width > 300
    assert cache.load(tmp_path / "small", "another key") is None
    (tmp_path / "small" / "line.png").unlink()
    assert cache.load(tmp_path / "small", "key") is None


def test_a_report_that_was_cut_off_is_none(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"key": "key", "claims": [')
    assert cache.load(tmp_path, "key") is None
    (tmp_path / "report.json").write_text(json.dumps({"key": "key"}))
    assert cache.load(tmp_path, "key") is None


def test_only_a_stage_without_a_report_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Small()
    report = report_of(stage, tmp_path, monkeypatch)
    monkeypatch.setattr(cache, "key_of", lambda module, *given: "key")
    computed = list[str]()

    def compute(
        self: runner.Runner, names: list[str]
    ) -> tuple[dict[str, cache.CachedReport], dict[str, str]]:
        computed.extend(names)
        return {}, {}

    monkeypatch.setattr(runner.Runner, "_compute", compute)
    assert runner.Runner(tmp_path, None).run(["small"]) == ({"small": report}, {})
    assert computed == []
    runner.Runner(tmp_path, None, fresh=True).run(["small"])
    assert computed == ["small"]


def test_a_stage_that_needs_what_is_not_there_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "load_stage", lambda name: Small(needs_shared=True))
    monkeypatch.setattr(cache, "key_of", lambda module, *given: "key")
    reports, reasons = runner.Runner(tmp_path, None).run(["small"])
    assert reports == {}
    assert reasons["small"].startswith("cannot be tested here: ")


def test_an_interrupt_ends_what_runs_and_what_waits() -> None:
    spawn = multiprocessing.get_context("spawn")
    with (
        pytest.raises(KeyboardInterrupt),
        ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool,
        runner._ended_with(pool),
    ):
        running, *waiting = (pool.submit(time.sleep, 600) for _ in range(3))
        until(running.running)
        raise KeyboardInterrupt
    assert isinstance(running.exception(), BrokenProcessPool)
    assert all(future.cancelled() or future.exception() for future in waiting)


def test_a_section_replaces_its_own_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, folder = tmp_path / "docs" / "page.md", tmp_path / "cache"
    first, second = Small(), Small("other", "Another", "ProxyGrad")
    reports = {stage.name: report_of(stage, folder, monkeypatch) for stage in (first, second)}
    page.write(target, [(first, reports["small"])], folder)
    page.write(target, [(second, reports["other"])], folder)
    both = target.read_text()
    assert (
        both.index("## ProxyGrad") < both.index("### Another") < both.index("## GAF") < both.index("### A s")
    )
    assert (target.parent / "images/reproduction/small/line.png").is_file()

    page.write(target, [(first, replace(reports["small"], note="Other words.", figures=()))], folder)
    assert target.read_text().count("### A small stage") == 1
    assert "Other words." in target.read_text()
    assert not (target.parent / "images/reproduction/small").exists()
    page.write(target, [(first, reports["small"])], folder)
    assert target.read_text() == both


@pytest.mark.parametrize(
    ("now", "differing"),
    [
        (lambda claim: claim, 0),
        (lambda claim: replace(claim, measured="another number"), 0),
        (lambda claim: replace(claim, verdict="cannot be tested here"), 0),
        (lambda claim: replace(claim, verdict="holds"), 2),
        (lambda claim: replace(claim, statement=f"not {claim.statement}"), 2),
    ],
)
def test_a_verdict_is_compared_with_the_page(
    now: Callable[[Claim], Claim], differing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, target = Small(), tmp_path / "page.md"
    page.write(target, [(stage, report_of(stage, tmp_path, monkeypatch))], tmp_path)
    claims = [now(claim) for claim in CLAIMS]
    assert len(page.differences(target, claims)) == differing


def test_the_key_follows_what_a_stage_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ROOT", tmp_path)
    for name, code in {
        "stage": "from proxygrad.first import value",
        "first": "def value():\n    import proxygrad.second",
        "second": "",
        "third": "",
    }.items():
        (tmp_path / "proxygrad").mkdir(exist_ok=True)
        (tmp_path / "proxygrad" / f"{name}.py").write_text(code)
    before = cache.key_of("proxygrad.stage", False)
    assert cache.key_of("proxygrad.stage", True) != before
    (tmp_path / "proxygrad/third.py").write_text("# no part of it")
    assert cache.key_of("proxygrad.stage", False) == before
    (tmp_path / "proxygrad/second.py").write_text("# imported inside a function")
    assert cache.key_of("proxygrad.stage", False) != before


def test_every_stage_is_named_as_its_module() -> None:
    for name in stage_names():
        stage = load_stage(name)
        assert (stage.name, bool(stage.title)) == (name, True)
    with pytest.raises(ValueError, match="there are"):
        load_stage("nothing")
