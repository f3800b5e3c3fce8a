"""Where a user's files lie, from the environment that is passed in: the data directory and `models.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Mode of directories for this user alone, as the XDG base directory specification has it.
PRIVATE = 0o700


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


def make_private(directory: Path) -> None:
    """Make ``directory``, and those above it that are missing, for this user alone (mode 0700).

    The data directory holds webhook URLs with tokens, and what callers asked for. A directory that exists
    keeps its mode: somebody may have opened it on purpose. Raises `OSError`.
    """
    for parent in reversed(directory.parents):
        if not parent.exists():
            parent.mkdir(mode=PRIVATE, exist_ok=True)
    directory.mkdir(mode=PRIVATE, exist_ok=True)


def close_to_others(directory: Path) -> None:
    """`make_private`, also where ``directory`` exists: for those that only this program makes.

    Earlier versions left them open to others. Raises `OSError`.
    """
    make_private(directory)
    if directory.stat().st_mode & ~PRIVATE & 0o777:
        directory.chmod(PRIVATE)
