"""``proxygrad attribute``: pictures in, a heat map and numbers out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from proxygrad.cli.main import main

pytestmark = pytest.mark.engine


@pytest.fixture
def bar(tmp_path: Path) -> Path:
    """A bright bar on black, of another size than the model's."""
    picture = Image.new("RGB", (48, 48))
    picture.paste((255, 255, 255), (16, 0, 24, 48))
    picture.save(tmp_path / "bar.png")
    return tmp_path / "bar.png"


def test_a_picture_gets_its_files_and_its_numbers(bar: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heatmap, overlay, npy = (bar.parent / name for name in ("h.png", "o.png", "c.npy"))
    files = ["-o", str(heatmap), "--overlay", str(overlay), "--npy", str(npy)]
    assert main(["attribute", "digits", "fc", "1", str(bar), *files]) == 0
    printed = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines())
    contributions = np.load(npy)
    assert contributions.shape == (1, 32, 32)
    difference = float(printed["value"]) - float(printed["of the reference"])
    assert float(contributions.sum()) == pytest.approx(difference, abs=1e-3)
    for path in (heatmap, overlay):
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((32, 32), "RGB")
    assert printed["saved as"] == f"{heatmap}, {overlay}, {npy}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fc", "11"], "unit 11"),
        (["fcc", "1"], "fcc"),
        (["fc", "1", "--reference", "noise"], "reference"),
        (["fc", "1", "--reference", "1.5"], "reference"),
        (["fc", "1", "--method", "saliency", "--rule", "rescale"], "rule 'rescale' applies to method"),
        (["fc", "1", "--at", "fc"], "at 'fc' is a logits; valid: a feature map"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    bar: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layer, unit, *options = words
    assert main(["attribute", "digits", layer, unit, str(bar), *options]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_file_that_is_no_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("text.png", "valid: PNG, JPEG, WebP, NPY"), ("none.png", "cannot read")):
        assert main(["attribute", "digits", "fc", "1", str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err
