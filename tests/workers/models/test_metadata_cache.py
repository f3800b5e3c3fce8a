"""A note is there while the model depends on the same; a bad one is none."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support.model_on_paper import MODEL
from workers.models.metadata_cache import MetadataCache, ModelMetadata

NOTE = ModelMetadata(fingerprint={"torch": "2", "weights file": ["a", 1, 2]}, info=MODEL, size_bytes=3)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    notes = MetadataCache(tmp_path / "models")
    assert notes.read("tiny", NOTE.fingerprint) is None
    notes.write("tiny", NOTE)
    assert notes.read("tiny", NOTE.fingerprint) == NOTE
    assert [file.name for file in (tmp_path / "models").iterdir()] == ["tiny.json"]


def test_a_note_of_something_else_is_none(tmp_path: Path) -> None:
    notes = MetadataCache(tmp_path)
    notes.write("tiny", NOTE)
    assert notes.read("tiny", {**NOTE.fingerprint, "torch": "3"}) is None


@pytest.mark.parametrize("damage", [b"", b"null", b"\xff", b'{"fingerprint": {}}'])
def test_a_damaged_note_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "tiny.json").write_bytes(damage)
    assert MetadataCache(tmp_path).read("tiny", {}) is None


def test_without_a_folder_none_are_kept() -> None:
    MetadataCache(None).write("tiny", NOTE)
    assert MetadataCache(None).read("tiny", NOTE.fingerprint) is None


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    MetadataCache(tmp_path / "file" / "models").write("tiny", NOTE)
    assert "what was found out about model tiny is not kept" in caplog.text


def test_several_writers_leave_one_whole_note(tmp_path: Path) -> None:
    threads = [threading.Thread(target=MetadataCache(tmp_path).write, args=("tiny", NOTE)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert MetadataCache(tmp_path).read("tiny", NOTE.fingerprint) == NOTE
    assert len(list(tmp_path.iterdir())) == 1
