"""Errors of an installation that lacks a package: which extra brings it."""

from __future__ import annotations


def lacks(error: ModuleNotFoundError, extra: str) -> str:
    """One sentence for a package that is missing: what ``extra``, one or several, is installed with."""
    package = (error.name or "").partition(".")[0]
    return (
        f"this needs {package!r}, which is not installed: pip install --editable '.[{extra}]' in a "
        "checkout of the project"
    )
