"""Children end with their parent, and not with the thread that asked for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from service.stack.parent_death import ON_LINUX, BoundProcess, die_with_parent
from tests.support.process_exit import gone_within

_PARENT = """
import subprocess, time
from service.stack.parent_death import die_with_parent
child = subprocess.Popen(["sleep", "60"], preexec_fn=die_with_parent())
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not ON_LINUX, reason="the parent death signal is Linux's")
def test_any_child_can_be_tied_to_its_parent() -> None:
    assert die_with_parent() is not None
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert gone_within(child, 30)


@pytest.mark.parametrize("watched", [False, True])
def test_it_runs_until_it_is_stopped(tmp_path: Path, watched: bool) -> None:
    made: list[BoundProcess] = []
    with (tmp_path / "kept").open("w") as kept:
        thread = threading.Thread(
            target=lambda: made.append(BoundProcess(["sleep", "60"], keep_fd=kept.fileno(), watched=watched))
        )
        thread.start()
        thread.join()
    (child,) = made
    time.sleep(0.1)
    assert child.running  # though the thread that started it has ended
    started_s = time.monotonic()
    child.stop(30)
    assert time.monotonic() - started_s < 15
    assert not child.running
    child.stop(5)


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]
    with (tmp_path / "kept").open("w") as kept:
        child = BoundProcess(deaf, keep_fd=kept.fileno())
    time.sleep(0.1)
    child.stop(0.2)
    assert not child.running


def test_a_program_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with (tmp_path / "kept").open("w") as kept, pytest.raises(FileNotFoundError):
        BoundProcess(["/nowhere/program"], keep_fd=kept.fileno(), watched=False)
