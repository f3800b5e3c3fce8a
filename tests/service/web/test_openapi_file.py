"""The committed OpenAPI document: that of this code, on whatever machine it is made."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
COMMITTED = REPOSITORY / "docs/openapi.json"
SCRIPT = REPOSITORY / "tools/openapi.py"


def text() -> str:
    spec = importlib.util.spec_from_file_location("openapi_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return str(script.text())


def test_the_committed_document_is_that_of_this_code() -> None:
    committed = COMMITTED.read_text(encoding="utf-8") if COMMITTED.exists() else ""
    assert committed == text(), "the interface has changed: run `make openapi`, and look at what it changes"


def test_the_document_is_the_same_everywhere(tmp_path: Path) -> None:
    """Whatever the order of sets, the place of the repository, and the environment."""
    made = set()
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)}
        code = "import json; from service.app import routed; print(json.dumps(routed().openapi()))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        made.add(json.dumps(json.loads(done.stdout)))
    assert len(made) == 1
    assert str(REPOSITORY) not in made.pop()
