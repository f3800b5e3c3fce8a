"""Directories for the user alone: made so, and closed where an earlier version left them open."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proxygrad.paths import close_to_others, make_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_directory_that_is_missing_is_made_for_the_user_alone(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    make_private(tmp_path / "shared" / "a" / "b")
    assert [mode(tmp_path / "shared" / path) for path in ("", "a", "a/b")] == [0o755, 0o700, 0o700]


def test_what_only_we_make_is_closed_where_it_is_open(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for _ in range(2):
        close_to_others(tmp_path / "open")
        assert mode(tmp_path / "open") == 0o700


@pytest.mark.parametrize("make", [make_private, close_to_others])
def test_a_file_in_the_way_is_an_error(make: object, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            make(directory)  # type: ignore[operator]
