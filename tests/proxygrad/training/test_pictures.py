"""Pictures of a folder: every kind that is read, and an error for each that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from proxygrad.errors import InvalidRequest
from proxygrad.training.pictures import read_pictures


def save(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB", level: int = 51) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, (level,) * len(mode) if len(mode) > 1 else level).save(path)


def test_all_pictures_by_name_and_in_folders(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a/x.JPG", "c.webp", "a/y.jpeg")):
        save(tmp_path / name, level=50 * number)
    (tmp_path / "notes.txt").write_text("none")
    images = read_pictures(tmp_path, (3, 4, 6))
    assert images.shape == (4, 3, 4, 6)
    order = images.float().mean(dim=(1, 2, 3)).tolist()
    assert order == pytest.approx([50, 150, 0, 100], abs=2)  # a/x, a/y, b, c; all but PNG are lossy


def test_gray_for_a_gray_network(tmp_path: Path) -> None:
    save(tmp_path / "a.png", mode="L", level=7)
    save(tmp_path / "b.png", level=9)
    images = read_pictures(tmp_path, (1, 4, 6))
    assert images.shape == (2, 1, 4, 6)
    assert images.flatten(1).float().mean(dim=1).tolist() == [7, 9]


def test_another_size_is_refused_or_scaled_and_cropped(tmp_path: Path) -> None:
    columns = np.tile(np.arange(20, dtype=np.uint8) * 10, (8, 1))
    Image.fromarray(columns).save(tmp_path / "wide.png")
    with pytest.raises(InvalidRequest, match=r"wide\.png has 20x8 px, the network takes 4x4; --resize"):
        read_pictures(tmp_path, (1, 4, 4))
    (image,) = read_pictures(tmp_path, (1, 4, 4), resize=True)
    assert image.shape == (1, 4, 4)
    assert image[0, 0].tolist() == pytest.approx([65, 85, 105, 125], abs=4)  # the middle 8 of 20 columns


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="holds no pictures"):
        read_pictures(tmp_path, (1, 4, 4))
    with pytest.raises(InvalidRequest, match="nowhere is not there"):
        read_pictures(tmp_path / "nowhere", (1, 4, 4))
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InvalidRequest, match=r"a\.png cannot be read"):
        read_pictures(tmp_path, (1, 4, 4))
    save(tmp_path / "a.png", (4, 4))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    with pytest.raises(InvalidRequest, match=r"a\.png cannot be read"):
        read_pictures(tmp_path, (1, 4, 4))
    Image.fromarray(np.full((4, 4), 60000, dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InvalidRequest, match="more than 8 bits"):
        read_pictures(tmp_path, (1, 4, 4))
    with pytest.raises(InvalidRequest, match="the network takes 4"):
        read_pictures(tmp_path, (4, 4, 4))


def test_a_picture_that_is_too_large_to_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png", (60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(InvalidRequest, match=r"a\.png cannot be read: Image size .* exceeds limit"):
        read_pictures(tmp_path, (1, 4, 4), resize=True)
