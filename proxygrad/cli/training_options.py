"""What the subcommands that train have in common: whole numbers, and a place for the file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from proxygrad.errors import ModelError


def check_place(out: Path) -> None:
    """Minutes of training should not end in a path that could never be written. Raises `ModelError`."""
    if out.is_dir() or not out.parent.is_dir():
        reason = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise ModelError(f"weights cannot be written to {out}: {reason}")


def whole(least: int, what: str) -> Callable[[str], int]:
    """A type for `argparse`: a whole number from ``least``, called ``what`` in errors."""

    def number(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if not least <= found < 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}: a whole number from {least}")
        return found

    return number


SEED = whole(0, "a seed")
