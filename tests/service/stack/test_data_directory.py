"""A data directory is held by one supervisor, and let go of however that ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.stack.data_directory import HomeError, HomeInUse, claimed

REPOSITORY = Path(__file__).resolve().parents[3]

_HOLDER = """
import sys, time
from pathlib import Path
from service.stack.data_directory import claimed
with claimed(Path(sys.argv[1])) as claim:
    claim.announce("http://127.0.0.1:1234")
    print("held", flush=True)
    time.sleep(60)
"""


def test_it_is_made_and_can_be_held_again_after_it_was_given_up(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    for _ in range(2):
        with claimed(home):
            assert home.is_dir()


def test_other_users_can_read_nothing_in_it(tmp_path: Path) -> None:
    home, older = tmp_path / "home", tmp_path / "older"
    (older / "valkey").mkdir(parents=True, mode=0o755)
    (older / "mine").mkdir(mode=0o755)
    with claimed(home), claimed(older):
        assert home.stat().st_mode & 0o077 == 0
        assert (older / "valkey").stat().st_mode & 0o077 == 0
        assert (older / "mine").stat().st_mode & 0o777 == 0o755, "not ours to close"


def test_a_second_holder_is_told_who_has_it_and_where_that_listens(tmp_path: Path) -> None:
    with claimed(tmp_path) as claim:
        claim.announce("http://127.0.0.1:1234")
        with pytest.raises(HomeInUse, match="PROXYGRAD_HOME") as refused, claimed(tmp_path):
            pass
    assert refused.value.url == "http://127.0.0.1:1234"
    assert str(tmp_path) in str(refused.value)


def test_a_killed_holder_gives_it_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HomeInUse, match=str(holder.pid)), claimed(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with claimed(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="file/home") as refused, claimed(tmp_path / "file" / "home"):
        pass
    assert "PROXYGRAD_HOME" in str(refused.value)
