"""The blocking client is what `tools/unasync.py` generates from the asynchronous one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / "tools/unasync.py"


def test_the_generated_files_are_up_to_date() -> None:
    pytest.importorskip("ruff", reason="the generated files are formatted by ruff, of the extra `dev`")
    done = subprocess.run([sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
