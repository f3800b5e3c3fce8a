"""Every example runs as its docstring says, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]

#: What each script leaves behind; `resnet20` is imported by a worker and does nothing by itself.
PICTURES = {
    "direction": 1,
    "diversity": 1,
    "own_network": 3,
    "vit": 5,
}

pytestmark = pytest.mark.engine


def test_none_is_forgotten() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*PICTURES, "resnet20"}


@pytest.mark.parametrize("name", PICTURES)
def test_an_example_draws_its_pictures(name: str, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    subprocess.run(command, cwd=tmp_path, env=environ, check=True, capture_output=True, timeout=300)
    drawn = list(tmp_path.glob("*.png"))
    assert len(drawn) == PICTURES[name]
    for path in drawn:
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors(256) or []) > 16, f"{path.name} shows nothing"
