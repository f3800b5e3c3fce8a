"""Where a user's files lie, from the environment that is passed in: the data directory and `models.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def home(environ: Mapping[str, str]) -> Path:
    """``PROXYGRAD_HOME``, or ``~/.local/share/proxygrad`` as the XDG base directories have it; absolute."""
    if given := environ.get("PROXYGRAD_HOME"):
        return Path(given).expanduser().absolute()
    user = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return user.absolute() / ".local" / "share" / "proxygrad"


def models_file(environ: Mapping[str, str]) -> Path | None:
    """``PROXYGRAD_MODELS``, or ``models.toml`` in the data directory if there is one, or None."""
    if given := environ.get("PROXYGRAD_MODELS"):
        return Path(given)
    default = home(environ) / "models.toml"
    return default if default.is_file() else None
