"""Processes of the service that a benchmark starts, and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.stack.parent_death import die_with_parent


def started(
    command: Sequence[str], environ: Mapping[str, str], log: Path, core: int | None = None
) -> subprocess.Popen[bytes]:
    """Python with these arguments; it dies with this process, and has ``core`` alone where one is given."""
    tie = die_with_parent()

    def prepare() -> None:
        if tie is not None:
            tie()
        if core is not None:
            os.sched_setaffinity(0, {core})

    with log.open("wb") as out:
        line = [sys.executable, *command]
        return subprocess.Popen(line, env=environ, stdout=out, stderr=out, preexec_fn=prepare)  # noqa: PLW1509


def printed(log: Path, pattern: str) -> str:
    """The first group of ``pattern`` in ``log``, as soon as it is there. Ends the program after a minute."""
    for _ in range(600):
        if found := re.search(pattern, log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"not printed: {pattern}\n{log.read_text()}")
