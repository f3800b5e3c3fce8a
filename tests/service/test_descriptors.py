"""File descriptors: the soft limit is raised, and callers never hold all of them."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from service import descriptors

REPOSITORY = Path(__file__).resolve().parents[2]


def limited(soft: int, hard: int) -> str:
    """What a process with these limits says."""
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
        "from service import descriptors; descriptors.raise_limit(); "
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE), descriptors.max_connections(), "
        "descriptors.max_followers())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    assert limited(256, 500) == "500 500 400 200"


@pytest.mark.parametrize(
    ("soft", "connections", "followers"),
    [(200, 100, 50), (64, 1, 1), (1_000_000, 999_900, descriptors.MOST_FOLLOWERS)],
)
def test_some_are_kept_for_the_process_itself(
    monkeypatch: pytest.MonkeyPatch, soft: int, connections: int, followers: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert (descriptors.max_connections(), descriptors.max_followers()) == (connections, followers)
