"""A short run of the fuzz, and more requests in `make soak`; `make fuzz` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.engine
@pytest.mark.parametrize("examples", ["4", pytest.param("20", marks=pytest.mark.soak)])
def test_generated_requests_are_answered_as_the_schema_says(examples: str) -> None:
    """In a process of its own: Schemathesis keeps its hooks, and Hypothesis its settings, for the process."""
    pytest.importorskip("torch", reason="workers compute with torch")
    command = [sys.executable, "-m", "tests.fuzz", "--short", "--examples", examples]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
