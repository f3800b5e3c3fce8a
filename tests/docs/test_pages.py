"""The pages as a whole: links, anchors and named paths exist, the index is complete, lines are short."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LONGEST_LINE = 120

#: What begins a path or a module of this repository.
_PLACES = "proxygrad|workers|service|tests|benchmarks|examples|tools|deploy|docs"
_PATH = re.compile(rf"`((?:{_PLACES})/[\w./-]*)`")
_MODULE = re.compile(r"`((?:proxygrad|workers|service|benchmarks)(?:\.\w+)+)`")
_BENCHMARK = re.compile(r"python (?:-m )?(benchmarks[./]\w+)")
_PAGE_IN_CODE = re.compile(r"\bdocs/[\w/-]+\.md\b")
_SOURCES = (".py", ".lua", ".toml", ".yml", ".yaml")


def _prose(page: Path) -> Iterator[str]:
    """The lines outside of code blocks."""
    in_code = False
    for line in page.read_text().splitlines():
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield line


@cache
def _anchors(page: Path) -> frozenset[str]:
    """The fragments of the headings, as GitHub forms them."""
    headings = [line.lstrip("#").strip() for line in _prose(page) if re.match("#+ ", line)]
    return frozenset(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_a_page_and_a_heading(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", "\n".join(_prose(page))):
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (fragment and fragment not in _anchors(there)):
            broken.append(target)
    assert broken == []


def test_the_index_names_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#]+\.md)", index.read_text())}
    assert set(DOCS.rglob("*.md")) - {index} <= linked


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_named_paths_and_modules_exist(page: Path) -> None:
    text = page.read_text()
    missing = [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    missing += [name for name in (*_MODULE.findall(text), *_BENCHMARK.findall(text)) if not _is_there(name)]
    assert missing == []


def _is_there(name: str) -> bool:
    """Whether a dotted name is a module, or a name that stands in the module or package before it."""
    path = ROOT.joinpath(*re.split(r"[./]", name))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    for parent in (path.parent.with_suffix(".py"), path.parent / "__init__.py"):
        if parent.is_file() and re.search(rf"\b{path.name}\b", parent.read_text()):
            return True
    # An attribute of a class: `package.module.Class.attribute`.
    return path.parent.parent.with_suffix(".py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_lines_are_short(page: Path) -> None:
    assert [
        line for line in _prose(page) if len(line) > LONGEST_LINE and not line.startswith(("|", "!["))
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_page_installs_what_is_not_published(page: Path) -> None:
    """Until the distribution is on PyPI, it is installed from a checkout."""
    assert not re.findall(r"pip install\b[^`\n]*['\" ]proxygrad\b", page.read_text())


def test_pages_that_the_code_names_exist() -> None:
    folders = [ROOT / place for place in _PLACES.split("|") if place != "docs"]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in _SOURCES]
    files += [
        path for path in ROOT.iterdir() if path.suffix in _SOURCES or path.name in ("Makefile", "Dockerfile")
    ]
    named = {(_name(path), page) for path in files for page in _PAGE_IN_CODE.findall(path.read_text())}
    assert named
    assert [(name, page) for name, page in sorted(named) if not (ROOT / page).exists()] == []
