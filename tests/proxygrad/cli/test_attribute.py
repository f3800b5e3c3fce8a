"""``proxygrad attribute``: pictures in, a heat map and numbers out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import proxygrad as pg
from proxygrad.cli.attribute import described
from proxygrad.cli.main import main
from proxygrad.spec.attribution import AttributionResult

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
    assert printed["highest logits"].count(",") == 2
    assert printed["saved as"] == f"{heatmap}, {overlay}, {npy}"


def test_references_are_names_grays_and_files(bar: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean = bar.parent / "mean.npy"
    np.save(mean, np.full((2, 1, 32, 32), 0.25, dtype=np.float32))
    npy, options = bar.parent / "c.npy", []
    for each in ("zeros", str(mean), "0.75", str(bar), "shuffled"):
        options += ["--reference", each]
    options += ["--references", "3", "--seed", "5", "--npy", str(npy), "-o", str(bar.parent / "h.png")]
    assert main(["attribute", "digits", "fc", "1", str(bar), *options]) == 0
    printed = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines())
    network = pg.load("digits")
    with Image.open(bar) as picture:
        levels = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR))
    image = torch.from_numpy(levels.astype(np.float32) / 255)[None]
    sent = torch.stack([torch.full_like(image, 0.25)] * 2 + [image])[None]
    expected = pg.attribute(
        network, image, "fc:1", reference=["zeros", sent, 0.75, "shuffled"], references=3, seed=5
    )
    assert expected.references.shape[1] == 8
    np.testing.assert_allclose(np.load(npy), expected.contributions[0].numpy(), rtol=1e-3, atol=1e-5)
    assert float(printed["of the reference"]) == pytest.approx(float(expected.reference_value), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fc", "11"], "unit 11"),
        (["fcc", "1"], "fcc"),
        (
            ["fc", "1", "--reference", "noise"],
            "unknown reference 'noise'; valid: zeros, mean, blurred, shuffled, a gray from 0",
        ),
        (["fc", "1", "--reference", "1.5"], "unknown reference 1.5; valid: zeros"),
        (["fc", "1", "--references", "3"], "references 3 applies to reference 'shuffled'"),
        (["fc", "1", "--reference", __file__], "test_attribute.py: the "),
        (["fc", "1", "--size-px", "4"], "size_px 4: Input should be"),
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


def test_what_to_know_of_the_numbers_is_told() -> None:
    missed = {"missed": 0.5, "share": 0.25}
    unruled = [{"operation": "sort", "layer": "head", **missed}, {"operation": "topk", "layer": "", **missed}]
    about = {"digest": "", "engine_version": "1", "device": "cpu", "dtype": "float32", "ran_s": 1.0}
    image = {"sha256": "0" * 64, "channels": 1, "height_px": 8, "width_px": 8}
    result = AttributionResult.model_validate(
        {
            "spec": {"model": "m", "layer": "fc", "unit": 0, "image": image},
            "value": 2.0,
            "reference_value": 2.0,
            "delta": {"absolute": 0.5, "relative": None},
            "unruled": unruled,
            "shape": (1, 8, 8),
            "scale": 1.0,
            "notes": ("no class names",),
            **about,
        }
    )
    told = dict(described(result))
    assert told["delta"] == "0.5"
    assert told["without a rule"] == "sort in head (0.25 of the difference), topk (0.25 of the difference)"
    assert told["note"] == "no class names"
    assert "highest logits" not in told
