"""Artifacts are written once and whole, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import cycle, groupby
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from tests.support.eventually import at_once, until
from workers.storage.store import StorageError, Store


def test_what_was_put_is_there(store: Store) -> None:
    assert store.put("a/0.png", b"png")
    assert store.get("a/0.png") == b"png"
    assert store.exists("a/0.png")
    assert store.size("a/0.png") == len(store.get("a/0.png") or b"")


def test_what_was_not_put_is_not(store: Store) -> None:
    store.put("a/0.png", b"png")
    assert store.get("a/1.png") is None
    assert not store.exists("a/1.png")
    assert not store.exists("b/0.png")


def test_the_first_write_stays(store: Store) -> None:
    assert store.put("a/0.png", b"first")
    assert not store.put("a/0.png", b"second")
    assert store.get("a/0.png") == b"first"


def test_a_checkpoint_is_replaced_in_place(store: Store, tmp_path: Path) -> None:
    store.replace("a/checkpoint", b"first")
    store.replace("a/checkpoint", b"second")
    assert store.get("a/checkpoint") == b"second"
    assert [path.name for path in (tmp_path / "artifacts" / "a").iterdir()] == ["checkpoint"]


def test_readers_of_what_is_replaced_see_it_whole(store: Store) -> None:
    store.replace("a/checkpoint", bytes(100_000))
    over = threading.Event()

    def write() -> None:
        for number in cycle(range(200)):
            if over.is_set():
                return
            store.replace("a/checkpoint", bytes([number]) * 100_000)

    def look() -> bool:
        data = store.get("a/checkpoint")
        assert data is not None
        assert len(data) == 100_000
        assert len(set(data)) == 1
        seen.add(data[0])
        return len(seen) > 50

    seen: set[int] = set()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(look)
    finally:
        over.set()
        writer.join()


@pytest.fixture(params=["directory", "memory"])
def any_store(request: pytest.FixtureRequest, store: Store) -> Store:
    """A directory, or an object store's way of doing things."""
    return store if request.param == "directory" else Store(MemoryStore(), "memory:///")


def test_what_is_there_is_listed_folder_by_folder(any_store: Store) -> None:
    for path in ("a/0.png", "b/0.png", "a/result.json", "ab/0.png"):
        any_store.put(path, path.encode())
    found = list(any_store.list())
    assert {each.path: each.size_bytes for each in found} == {
        path: len(path) for path in ("a/0.png", "a/result.json", "ab/0.png", "b/0.png")
    }
    folders = [each.path.partition("/")[0] for each in found]
    assert len(list(groupby(folders))) == 3
    assert all(abs(each.modified_at - time.time()) < 60 for each in found)
    assert {each.path for each in any_store.list("a")} == {"a/0.png", "a/result.json"}
    assert list(any_store.list("nowhere")) == []


def test_what_is_deleted_is_gone_and_deleting_again_is_fine(any_store: Store) -> None:
    any_store.put("a/0.png", b"png")
    for _ in range(2):
        any_store.delete("a/0.png")
        assert not any_store.exists("a/0.png")
        assert any_store.size("a/0.png") is None
    assert any_store.put("a/0.png", b"again")


def test_an_emptied_folder_goes_too(store: Store, tmp_path: Path) -> None:
    store.put("a/0.png", b"png")
    store.put("a/1.png", b"png")
    store.delete("a/0.png")
    assert (tmp_path / "artifacts" / "a").is_dir()
    store.delete("a/1.png")
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_writers_and_removers_of_one_folder_do_not_disturb_each_other(store: Store) -> None:
    """An emptied folder goes just as somebody else wants it."""
    wrong: list[str] = []

    def come_and_go(number: int) -> None:
        for _ in range(300):
            try:
                if not store.put(f"a/{number}", b"x"):
                    wrong.append("there already")
                store.delete(f"a/{number}")
            except StorageError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_of_many_writers_at_once_one_wins(store: Store) -> None:
    ready = threading.Barrier(8)
    won: list[bytes] = []

    def write(number: int) -> None:
        data = bytes([number]) * 100_000
        ready.wait()
        if store.put("a/0.png", data):
            won.append(data)

    at_once(write, range(8))
    assert won == [store.get("a/0.png")]


_WRITER = """
import sys
from workers.storage.store import Store
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
        while not _is_half_written_now(writer, tmp_path):
            writer.send_signal(signal.SIGCONT)
            time.sleep(0.001)
        writer.send_signal(signal.SIGKILL)
    whole = [path for path in (tmp_path / "a").iterdir() if path.suffix == ".png"]
    assert {len(store.get(f"a/{path.name}") or b"") for path in whole} <= {20_000_000}
    (left,) = _half_written(tmp_path)
    (unfinished,) = store.unfinished()
    assert (unfinished.path, unfinished.size_bytes) == (f"a/{left.name}", left.stat().st_size)
    assert left.name not in {each.path for each in store.list()}
    name = left.name.partition("#")[0]
    if not store.exists(f"a/{name}"):  # what it left behind is in nobody's way
        assert store.put(f"a/{name}", b"again")
        assert store.get(f"a/{name}") == b"again"
    store.delete(unfinished.path)
    assert not left.exists()


def _is_half_written_now(writer: subprocess.Popen[bytes], directory: Path) -> bool:
    """Whether the writer, which stands still from now on, is in the middle of a file."""
    writer.send_signal(signal.SIGSTOP)
    os.waitpid(writer.pid, os.WUNTRACED)
    return _half_written(directory) != []


def _half_written(directory: Path) -> list[Path]:
    """Files that the store is writing; they get their names when they are whole."""
    return [path for path in directory.glob("a/*#*") if path.exists()]


def test_a_directory_is_made(tmp_path: Path) -> None:
    Store.from_url((tmp_path / "a b" / "c").as_uri()).put("x", b"")
    assert (tmp_path / "a b" / "c" / "x").is_file()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Not a directory: .*/file"):
        Store.from_url((tmp_path / "file" / "artifacts").as_uri())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match=f"{tmp_path} is not writable"):
        Store.from_url(tmp_path.as_uri())


@pytest.mark.parametrize("url", ["ftp://host/x", "artifacts"])
def test_an_url_nobody_knows_is_named(url: str) -> None:
    with pytest.raises(StorageError, match=f"cannot open the artifact store '{url}'"):
        Store.from_url(url)


def test_a_failed_write_is_a_storage_error_in_one_line(store: Store, tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "a").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write a/0\.png") as caught:
        store.put("a/0.png", b"")
    assert "\n" not in str(caught.value)


def test_object_stores_pass_through() -> None:
    assert Store.from_url("s3://bucket/prefix").url == "s3://bucket/prefix"
