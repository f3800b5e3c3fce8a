"""The data directory of one stack: usable, and claimed by one supervisor at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from proxygrad.errors import ProxyGradError
from proxygrad.paths import close_to_others, make_private

LOCK_NAME = "serve.lock"
#: What the stack makes in it: the embedded server's data, artifacts, logs, and the metadata of models.
SUBDIRECTORIES = ("valkey", "artifacts", "logs", "models")


class HomeError(ProxyGradError):
    """The data directory cannot be used."""

    code = "home_unusable"


class HomeInUse(HomeError):
    """Another supervisor holds the directory; ``url`` is where it listens, once it does."""

    code = "home_in_use"

    def __init__(self, home: Path, pid: int | None, url: str | None) -> None:
        self.url = url
        holder = f"process {pid}" if pid else "another process"
        where = f" at {url}" if url else ""
        super().__init__(
            f"{holder} already serves from {str(home)!r}{where}; stop it, "
            "or name another directory with PROXYGRAD_HOME"
        )


class DirectoryLock:
    """The right to use a directory, for as long as the lock file stays open."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def announce(self, url: str | None) -> None:
        """Write down who holds the directory and where it listens, for those who come later."""
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "url": url}, self._file)
        self._file.flush()


@contextmanager
def claimed(home: Path) -> Iterator[DirectoryLock]:
    """Create `home` where it is missing and hold it. Other users can read nothing that we write there.

    The kernel gives it up when the process ends, however it ends.
    Raises `HomeError` when it cannot be written and `HomeInUse` when it is held.
    """
    try:
        make_private(home)
        file = (home / LOCK_NAME).open("a+")
    except OSError as error:
        reason = error.strerror or str(error)
        raise HomeError(
            f"the data directory {str(home)!r} cannot be written: {reason} (PROXYGRAD_HOME)"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(home, file) from error
        _close_subdirectories(home)
        claim = DirectoryLock(file)
        claim.announce(None)
        yield claim


def _close_subdirectories(home: Path) -> None:
    for name in SUBDIRECTORIES:
        with suppress(OSError):  # another user's
            if (home / name).is_dir():
                close_to_others(home / name)


def _in_use(home: Path, file: IO[str]) -> HomeInUse:
    file.seek(0)
    try:
        holder = json.load(file)
    except ValueError:  # Its holder is writing it at this moment.
        holder = {}
    return HomeInUse(home, holder.get("pid"), holder.get("url"))
