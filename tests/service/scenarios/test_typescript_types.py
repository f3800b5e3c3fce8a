"""The types that openapi-typescript makes of the committed document, used by a program in TypeScript."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
TOOLS = REPOSITORY / "tools/typescript"
COMMANDS = TOOLS / "node_modules/.bin"


def run(*command: str | Path) -> None:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_program_in_typescript_agrees_with_the_document(tmp_path: Path) -> None:
    """Requests without their optional fields are complete; answers have all of theirs."""
    if not COMMANDS.is_dir():
        pytest.skip("openapi-typescript is not installed: `make typescript` installs it with npm")
    run(COMMANDS / "openapi-typescript", REPOSITORY / "docs/openapi.json", "--output", tmp_path / "api.d.ts")
    program = tmp_path / "usage.ts"
    program.write_text((TOOLS / "usage.ts").read_text())
    run(COMMANDS / "tsc", "--strict", "--noEmit", "--skipLibCheck", program)
