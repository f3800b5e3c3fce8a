"""docs/development.md maps every folder, and answers where things are with few files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/development.md").read_text()
ROOMS = ("proxygrad", "workers", "service")
#: What the table "Where is …" may send a reader to, for eight questions together.
MOST_FILES = 15


def _section(heading: str) -> str:
    _, found, rest = PAGE.partition(f"\n## {heading}\n")
    assert found, heading
    return rest.partition("\n## ")[0]


def _tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("which folders belong to the project is read from git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.splitlines() if (ROOT / name).exists()]


def test_the_map_names_every_folder_and_no_other() -> None:
    mapped = re.findall(r"^\| `([\w/]+)/` \|", _section("Map"), re.MULTILINE)
    assert len(mapped) == len(set(mapped))
    code = [path.parts for path in _tracked() if path.suffix in (".py", ".lua")]
    packages = {"/".join(parts[:2]) for parts in code if parts[0] in ROOMS and len(parts) > 2}
    others = {path.parts[0] for path in _tracked() if len(path.parts) > 1 and path.parts[0][0] != "."}
    assert set(mapped) == packages | (others - set(ROOMS))


def test_it_names_every_module_beside_the_packages() -> None:
    modules = {str(path) for path in _tracked() if path.suffix == ".py" and path.parts[0] in ROOMS}
    alone = {path for path in modules if path.count("/") == 1 and "__" not in path}
    assert {path for path in alone if f"`{path}`" not in _section("Map")} == set()


def test_its_answers_take_few_files() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", _section("Where is …"), re.MULTILINE)[1:]
    assert len(rows) >= 8
    files = [path for _, answer in rows for path in re.findall(r"`([\w/]+\.\w+)`", answer)]
    assert [path for path in files if not (ROOT / path).is_file()] == []
    assert len(files) <= MOST_FILES * len(rows) / 8


def test_the_glossary_explains_each_term_once() -> None:
    terms = re.findall(r"^\| (.+?) \| .+ \|$", _section("Glossary"), re.MULTILINE)
    terms = [term for term in terms if term not in ("term", "---")]
    assert terms
    assert len(terms) == len(set(terms))
