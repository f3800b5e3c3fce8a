"""The artefact store: bytes under a path, written once, never seen half.

A directory, or any object store that obstore knows (S3, GCS, Azure), by URL. A write either happens as a
whole or not at all; of two writers of one path the first wins and the second is told so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url

from workers.errors import StorageError

__all__ = ["StorageError", "Store"]


class Store:
    """Write-once artefacts. Safe to share between threads and processes."""

    def __init__(self, objects: ObjectStore, url: str) -> None:
        self._objects = objects
        self.url = url

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Open the store at ``url``; a directory (``file:///dir``) is made when it is not there.

        Raises `StorageError` for a directory that cannot be made or written, or a URL nobody knows.
        """
        try:
            if urlsplit(url).scheme == "file":
                _make_writable(Path(unquote(urlsplit(url).path)))
            return cls(from_url(url), url)
        except (BaseError, OSError, ValueError) as exc:
            raise StorageError(f"cannot open the artefact store {url!r}: {_reason(exc)}") from exc

    def put(self, path: str, data: bytes) -> bool:
        """Store ``data``; False when there was something at ``path`` already, which is kept.

        Raises `StorageError` when it cannot be written; then nothing is there.
        """
        try:
            obstore.put(self._objects, path, data, mode="create", use_multipart=False)
        except (AlreadyExistsError, FileExistsError):
            return False
        except (BaseError, OSError) as exc:
            raise StorageError(
                f"cannot write {path} to the artefact store {self.url}: {_reason(exc)}"
            ) from exc
        return True

    def get(self, path: str) -> bytes | None:
        """The bytes at ``path``, or None. Raises `StorageError` when the store cannot be read."""
        try:
            return bytes(obstore.get(self._objects, path).bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as exc:
            raise StorageError(
                f"cannot read {path} from the artefact store {self.url}: {_reason(exc)}"
            ) from exc

    def exists(self, path: str) -> bool:
        """Whether there is something at ``path``. Raises `StorageError` when the store cannot be read."""
        try:
            obstore.head(self._objects, path)
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as exc:
            raise StorageError(
                f"cannot read {path} from the artefact store {self.url}: {_reason(exc)}"
            ) from exc
        return True


def _make_writable(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"the directory {directory} is not writable")


def _reason(exc: Exception) -> str:
    """The first line: obstore appends a dump of its internals."""
    return str(exc).partition("\n")[0].rstrip(".")
