"""Artefacts are written once and whole, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from workers.storage import StorageError, Store


def test_what_was_put_is_there(store: Store) -> None:
    assert store.put("a/0.png", b"png")
    assert store.get("a/0.png") == b"png"
    assert store.exists("a/0.png")


def test_what_was_not_put_is_not(store: Store) -> None:
    store.put("a/0.png", b"png")
    assert store.get("a/1.png") is None
    assert not store.exists("a/1.png")
    assert not store.exists("b/0.png")


def test_the_first_write_stays(store: Store) -> None:
    assert store.put("a/0.png", b"first")
    assert not store.put("a/0.png", b"second")
    assert store.get("a/0.png") == b"first"


def test_of_many_writers_at_once_one_wins(store: Store) -> None:
    ready = threading.Barrier(8)
    won: list[bytes] = []

    def write(number: int) -> None:
        data = bytes([number]) * 100_000
        ready.wait()
        if store.put("a/0.png", data):
            won.append(data)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.get("a/0.png")]


_WRITER = """
import sys
from workers.storage import Store
store, data, number = Store.from_url(sys.argv[1]), b"x" * 20_000_000, 0
print("ready", flush=True)
while True:
    store.put(f"a/{number}.png", data)
    number += 1
"""


def test_a_writer_killed_in_mid_write_leaves_nothing_half(tmp_path: Path) -> None:
    store = Store.from_url(tmp_path.as_uri())
    command = [sys.executable, "-c", _WRITER, store.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while not _half_written(tmp_path):
            time.sleep(0.001)
        writer.send_signal(signal.SIGKILL)
    whole = [path for path in (tmp_path / "a").iterdir() if path.suffix == ".png"]
    assert {len(store.get(f"a/{path.name}") or b"") for path in whole} <= {20_000_000}
    (left,) = _half_written(tmp_path)
    name = left.name.partition("#")[0]
    if not store.exists(f"a/{name}"):  # what it left behind is in nobody's way
        assert store.put(f"a/{name}", b"again")
        assert store.get(f"a/{name}") == b"again"


def _half_written(directory: Path) -> list[Path]:
    """Files that the store is writing; they get their names when they are whole."""
    return [path for path in directory.glob("a/*#*") if path.exists()]


def test_a_directory_is_made(tmp_path: Path) -> None:
    Store.from_url((tmp_path / "a b" / "c").as_uri()).put("x", b"")
    assert (tmp_path / "a b" / "c" / "x").is_file()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Not a directory: .*/file"):
        Store.from_url((tmp_path / "file" / "artefacts").as_uri())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match=f"{tmp_path} is not writable"):
        Store.from_url(tmp_path.as_uri())


@pytest.mark.parametrize("url", ["ftp://host/x", "artefacts"])
def test_an_url_nobody_knows_is_named(url: str) -> None:
    with pytest.raises(StorageError, match=f"cannot open the artefact store '{url}'"):
        Store.from_url(url)


def test_a_failed_write_is_a_storage_error_in_one_line(store: Store, tmp_path: Path) -> None:
    (tmp_path / "artefacts" / "a").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write a/0\.png") as caught:
        store.put("a/0.png", b"")
    assert "\n" not in str(caught.value)


def test_object_stores_pass_through() -> None:
    assert Store.from_url("s3://bucket/prefix").url == "s3://bucket/prefix"
