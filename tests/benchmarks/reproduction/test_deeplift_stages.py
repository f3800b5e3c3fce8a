"""The stages of DeepLIFT: their quick runs hold every published figure that they measure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.reproduction.cache import draw
from benchmarks.reproduction.stage import Context, load_stage

pytestmark = pytest.mark.engine


def test_the_arguments_of_the_paper_hold(tmp_path: Path) -> None:
    report = load_stage("deeplift_toys").run(Context(True, None, lambda done, total, text: None))
    assert [claim.verdict for claim in report.claims] == ["holds"] * 3
    assert draw(report, tmp_path)[0].file == "toys.png"


@pytest.mark.soak
@pytest.mark.parametrize("name", ["deeplift_families", "deeplift_genomics", "deeplift_mnist"])
def test_every_claim_holds(name: str, shared_truth: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    report = load_stage(name).run(Context(True, shared_truth, lambda done, total, text: None))
    assert {claim.statement: claim.verdict for claim in report.claims if claim.verdict != "holds"} == {}
    assert all((tmp_path / figure.file).stat().st_size > 10_000 for figure in draw(report, tmp_path))
