"""The artifact store: bytes under a path, written once, never seen half.

A directory, or any object store that obstore knows (S3, GCS, Azure), by URL. A write either happens as a
whole or not at all; of two writers of one path the first wins and the second is told so.

In a directory a write goes to ``NAME#1`` (``#2``, …) beside ``NAME`` and gets its name when it is whole. A
writer that is killed before leaves that file, which nothing here lists or reads until it is cleared away.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from proxygrad.paths import make_private
from proxygrad.protocol.addresses import without_secrets
from workers.errors import StorageError, StorageFull

__all__ = ["StorageError", "StorageFull", "Store", "Stored"]

#: What the operating system says where there is no room: the disk is full, or the user's share of it.
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: What it says where an empty folder is removed just as it is wanted: 18 of 13,000 writes into three folders
#: that four threads filled and emptied all the time. Another try finds it settled: then 0 of 50,000.
_MOVING = (errno.ENOENT, errno.EEXIST)
_WRITES = 5
_UNFINISHED = re.compile(r".+#[0-9]+")


class Stored(NamedTuple):
    """One artifact of a store; ``modified_at`` in seconds since 1970, by the clock of the store."""

    path: str
    size_bytes: int
    modified_at: float


class Store:
    """Write-once artifacts. Safe to share between threads and processes."""

    def __init__(self, objects: ObjectStore, url: str, directory: Path | None = None) -> None:
        self._objects = objects
        self._directory = directory
        self.url = url

    @property
    def near(self) -> bool:
        """Whether it is a directory, where a look takes microseconds."""
        return self._directory is not None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Open the store at ``url``; a directory (``file:///dir``) is made when it is not there.

        Raises `StorageError` for a directory that cannot be made or written, or a URL nobody knows.
        """
        try:
            if urlsplit(url).scheme != "file":
                return cls(from_url(url), without_secrets(url))
            directory = Path(unquote(urlsplit(url).path))
            _make_writable(directory)
            return cls(LocalStore(directory, automatic_cleanup=True), url, directory)
        except (BaseError, OSError, ValueError) as exc:
            raise StorageError(
                f"cannot open the artifact store {without_secrets(url)!r}: {_reason(exc)}"
            ) from exc

    def put(self, path: str, data: bytes) -> bool:
        """Store ``data``; False when there was something at ``path`` already, which is kept.

        Raises `StorageError` when it cannot be written, `StorageFull` for want of room; nothing is there.
        """
        try:
            self._write(path, data, "create")
        except (AlreadyExistsError, FileExistsError):
            return False
        except (BaseError, OSError) as exc:
            raise self._unwritten(path, data, exc) from exc
        return True

    def replace(self, path: str, data: bytes) -> None:
        """Store ``data`` in the place of whatever is at ``path``: readers see the old or the new, whole.

        For checkpoints, and for what turned out to be damaged. Raises what `put` raises; then the old one is
        there still.
        """
        try:
            self._write(path, data, "overwrite")
        except (BaseError, OSError) as exc:
            raise self._unwritten(path, data, exc) from exc

    def get(self, path: str) -> bytes | None:
        """The bytes at ``path``, or None. Raises `StorageError` when the store cannot be read."""
        try:
            return bytes(obstore.get(self._objects, path).bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as exc:
            raise self._trouble(f"read {path} from", exc) from exc

    def exists(self, path: str) -> bool:
        """Whether there is something at ``path``. Raises `StorageError` when the store cannot be read."""
        return self.size(path) is not None

    def size(self, path: str) -> int | None:
        """How many bytes are at ``path``, or None. Raises `StorageError` when the store cannot be read."""
        try:
            if self._directory is None:
                return obstore.head(self._objects, path)["size"]
            return (self._directory / path).stat().st_size  # a fiftieth of what the way through obstore takes
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as exc:
            raise self._trouble(f"read {path} from", exc) from exc

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Everything below the folder ``prefix``, or everything; what is in one folder comes together.

        It is read on the way, a thousand at a time: what is written or deleted meanwhile may be among it or
        not. Raises `StorageError` when the store cannot be read.
        """
        try:
            for chunk in obstore.list(self._objects, prefix or None, chunk_size=1000):
                for each in chunk:
                    yield Stored(each["path"], each["size"], each["last_modified"].timestamp())
        except (BaseError, OSError) as exc:
            raise self._trouble(f"list {prefix or 'what is'} in", exc) from exc

    def unfinished(self) -> Iterator[Stored]:
        """What writers are writing at this moment, or left when they were killed; `delete` removes it.

        Only a directory has any: an object store makes an object of a whole request or nothing.
        """
        if self._directory is None:
            return
        for folder, _, names in os.walk(self._directory):
            for name in filter(_UNFINISHED.fullmatch, names):
                file = Path(folder, name)
                with suppress(FileNotFoundError):
                    found = file.stat()
                    path = file.relative_to(self._directory).as_posix()
                    yield Stored(path, found.st_size, found.st_mtime)

    def delete(self, path: str) -> None:
        """Remove what is at ``path``; nothing there is as good. Raises `StorageError` when that fails."""
        try:
            if self._directory is not None and _UNFINISHED.fullmatch(path):
                _unlink(self._directory / path)  # obstore takes no such name
            else:
                obstore.delete(self._objects, path)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as exc:
            raise self._trouble(f"delete {path} from", exc) from exc

    def _write(self, path: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        for tries_left in reversed(range(_WRITES)):
            try:
                obstore.put(self._objects, path, data, mode=mode, use_multipart=False)
                return
            except (AlreadyExistsError, FileExistsError):
                raise
            except (BaseError, OSError) as exc:
                if not tries_left or _os_error(exc) not in _MOVING:
                    raise

    def _unwritten(self, path: str, data: bytes, exc: Exception) -> StorageError:
        if _os_error(exc) in _FULL:
            return StorageFull(
                f"the artifact store {self.url} is full: no room for the {len(data)} bytes of {path}"
            )
        return self._trouble(f"write {path} to", exc)

    def _trouble(self, attempt: str, exc: Exception) -> StorageError:
        return StorageError(f"cannot {attempt} the artifact store {self.url}: {_reason(exc)}")


def _make_writable(directory: Path) -> None:
    make_private(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"the directory {directory} is not writable")


def _unlink(file: Path) -> None:
    """Remove a file, and its folder where it was the last one."""
    file.unlink()
    with suppress(OSError):
        file.parent.rmdir()


def _os_error(exc: Exception) -> int | None:
    """The number of the operating system's error, which obstore has in its words only."""
    found = re.search(r"\(os error (\d+)\)", str(exc))
    return None if found is None else int(found[1])


def _reason(exc: Exception) -> str:
    """The first line: obstore appends a dump of its internals."""
    return str(exc).partition("\n")[0].rstrip(".")
