"""A child process ends when asked, when it will not, and says how it ended."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from service.stack.child_process import QUIET_S, Backoff, Child


def child(tmp_path: Path, code: str) -> Child:
    return Child("part", [sys.executable, "-c", code], os.environ, log=tmp_path / "part.log")


def until_printed(tmp_path: Path, text: str) -> None:
    deadline_s = time.monotonic() + 20
    while text not in (tmp_path / "part.log").read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_pauses_double_up_to_a_limit_and_begin_anew_after_a_quiet_time() -> None:
    backoff = Backoff()
    assert [backoff.pause_s(5) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.pause_s(QUIET_S + 1) == 1


def test_it_stops_when_asked(tmp_path: Path) -> None:
    part = child(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    part.start()
    until_printed(tmp_path, "up")
    assert not part.ended
    part.stop(grace_s=20)
    assert part.ended
    assert part.obituary().startswith("the part was ended by SIGTERM")
    part.stop(grace_s=1)


def test_one_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    part = child(tmp_path, code)
    part.start()
    until_printed(tmp_path, "up")
    part.stop(grace_s=0.1)
    assert part.obituary().startswith("the part was ended by SIGKILL")


def test_its_last_words_are_kept(tmp_path: Path) -> None:
    part = child(tmp_path, "import sys; sys.exit('error: no such thing')")
    part.start()
    deadline_s = time.monotonic() + 20
    while not part.ended and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert part.obituary() == (
        "the part ended with exit status 1; its last line was 'error: no such thing'; "
        f"its log is {tmp_path / 'part.log'}"
    )


def test_stopping_what_was_never_started_is_harmless(tmp_path: Path) -> None:
    part = child(tmp_path, "")
    part.stop(grace_s=1)
    assert (part.pid, part.ended) == (None, False)


def test_a_user_who_will_not_wait_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    part = child(tmp_path, code)
    part.start()
    until_printed(tmp_path, "up")
    process = part._process
    assert process is not None
    waits = iter([KeyboardInterrupt()])
    wait = process.wait

    def interrupted(timeout: float | None = None) -> int:
        for error in waits:
            raise error
        return wait(timeout)

    monkeypatch.setattr(process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        part.stop(grace_s=60)
    assert part.ended
