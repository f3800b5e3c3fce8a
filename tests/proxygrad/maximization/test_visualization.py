"""What comes out shows itself: files, notebooks, one short line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from proxygrad.errors import NetworkError, ProxyGradError
from proxygrad.images import decode_png
from proxygrad.maximization.ascent import maximize
from proxygrad.maximization.visualization import SHOWN_PX, Visualization, VisualizationList
from tests.support.networks import small


@pytest.fixture(scope="module")
def found() -> Visualization:
    return maximize(small(), "conv2:1", steps=3)


def test_it_is_saved_as_the_pixels_it_has(found: Visualization, tmp_path: Path) -> None:
    for path in (tmp_path / "one.png", str(tmp_path / "other.png")):
        found.save(path)
        saved = decode_png(Path(path).read_bytes())
        torch.testing.assert_close(saved, found.image, rtol=0, atol=0.5 / 255 + 1e-6)


def test_its_repr_is_one_short_line(found: Visualization) -> None:
    text = repr(found)
    assert text.startswith("Visualization('conv2:1', activation ")
    assert text.endswith("3x16x16)")
    assert len(text) < 100


def test_a_notebook_shows_it_large_enough_to_see(found: Visualization) -> None:
    png = found._repr_png_()
    assert png is not None
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (SHOWN_PX, SHOWN_PX)


def test_channels_that_a_png_has_not_are_told_by_repr(tmp_path: Path) -> None:
    five = maximize(small(5), "conv2:1", steps=1)
    assert five._repr_png_() is None
    assert "5x16x16" in repr(five)
    assert "<img" not in VisualizationList([five])._repr_html_()
    with pytest.raises(NetworkError, match="5 channels has no PNG"):
        five.save(tmp_path / "no.png")


def test_a_list_shows_a_grid_of_figures(found: Visualization) -> None:
    page = VisualizationList([found] * 70)._repr_html_()
    assert page.count('<img src="data:image/png;base64,') == 64
    assert "… and 6 more" in page
    assert "conv2:1" in page


def test_the_repr_of_a_list_is_short(found: Visualization) -> None:
    text = repr(VisualizationList([found] * 12))
    assert len(text.splitlines()) == 13
    assert "… and 2 more" in text
    assert repr(VisualizationList()) == "[]"


def test_a_plot_without_matplotlib_says_what_to_install(
    found: Visualization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ProxyGradError, match=r"plot\(\) needs matplotlib: pip install matplotlib"):
        found.plot()


def test_a_plot_has_the_image_and_the_curve(found: Visualization) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    image, curve = found.plot()
    assert image.get_title() == "conv2:1"
    assert curve.lines[0].get_ydata().tolist() == pytest.approx(list(found.curve))
