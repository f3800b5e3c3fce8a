"""Whether processes have ended."""

from __future__ import annotations

import os
import time
from pathlib import Path


def gone_within(pid: int, limit_s: float) -> bool:
    """Wait for the process to end; False when it did not."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if _is_gone(pid):
            return True
        time.sleep(0.01)
    return False


def _is_gone(pid: int) -> bool:
    """Whether the process has ended; an orphan may wait long for somebody to read its exit status."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"
