"""Fingerprints: what a model depends on, read without building it. An equal fingerprint means an equal model.

Files are known by path, size and time of change. Of a builder of one's own that is the file it stands in, not
what that imports; so a fingerprint says when a model need not be looked at again, and never what it is. That
is its digest.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from pydantic import JsonValue

from proxygrad.version import ENGINE_VERSION

#: Rises when the same files tell this code more than before, such as the names of classes.
FORMAT = 2

#: Builders that are a package and not a module of one's own.
_PACKAGES = ("torchvision", "timm")


def fingerprint(
    name: str, builder: str, files: dict[str, Path | None], settings: JsonValue
) -> dict[str, JsonValue]:
    """Of a model: its ``builder``, the ``files`` it is made from, its ``settings``, and the versions of what
    makes it. JSON, to be compared as a whole."""
    source = builder.partition(":")[0]
    return {
        "name": name,
        "settings": settings,
        "engine": ENGINE_VERSION,
        "torch": metadata.version("torch"),
        "format": FORMAT,
        "package": _version(source) if source in _PACKAGES else None,
        "builder": None if source in _PACKAGES else _file(_source_file(source)),
        **{f"{role} file": _file(path) for role, path in files.items()},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _file(path: Path | None) -> JsonValue:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return [str(path), None, None]
    return [str(path), found.st_size, found.st_mtime_ns]


def _source_file(module: str) -> Path | None:
    try:
        found = importlib.util.find_spec(module)
    except Exception:  # it imports the packages above, which may do anything
        return None
    return Path(found.origin) if found is not None and found.has_location and found.origin else None
