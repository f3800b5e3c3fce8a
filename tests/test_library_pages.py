"""The pages on the library: every block of Python runs, in order, as it is printed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import proxygrad
from proxygrad.models.torchvision_compat import import_torchvision

pytestmark = pytest.mark.engine

DOCS = Path(__file__).parents[1] / "docs"
LIBRARY = (DOCS / "library.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    """The page's code blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "name", ["library", "quickstart", "migration", "discriminators", "sampling", "attribution", "training"]
)
def test_every_block_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import_torchvision()  # makes the page's own import work beside a CPU build of torch
    monkeypatch.chdir(tmp_path)
    page = (DOCS / f"{name}.md").read_text()
    names: dict[str, object] = {"__name__": name}
    programs = blocks(page, "python")
    assert programs
    for number, program in enumerate(programs):
        exec(compile(program, f"{name}.md, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    for shown in blocks(page, "text"):
        assert shown in printed


def test_each_call_of_another_library_stands_above_ours() -> None:
    languages = re.findall(r"^```(\w+)$", (DOCS / "migration.md").read_text(), re.MULTILINE)
    assert languages[0] == "python"  # the imports
    assert languages[1::2] == ["py"] * (len(languages) // 2)
    assert languages[2::2] == ["python"] * (len(languages) // 2)
    for program in blocks((DOCS / "migration.md").read_text(), "py"):
        ast.parse(program)


@pytest.mark.parametrize("name", proxygrad.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert f"`{name}`" in LIBRARY.partition("## All names")[2]
    if not name.startswith("__"):
        assert (getattr(proxygrad, name).__doc__ or "").strip(), name
