"""The shape of the tree: folders that fit on one screen, one class per name, tests beside what they test."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("proxygrad", "workers", "service")
LARGEST_FOLDER = 12
LONGEST_MODULE = 400
#: Folders of tests that mirror no package: what crosses modules, and pages that are compared with the code.
OWN_FOLDERS = {"scenarios", "docs", "lua"}
#: The same thing in two forms: a visualization in memory and as the service answers with it.
TWO_FORMS = {"Attribution", "Visualization"}


def modules() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def packages() -> list[Path]:
    return [module.parent for module in modules() if module.name == "__init__.py"]


@pytest.mark.parametrize("package", packages(), ids=lambda package: str(package.relative_to(ROOT)))
def test_a_folder_fits_on_one_screen_and_says_what_it_is(package: Path) -> None:
    own = [module for module in package.glob("*.py") if not module.name.startswith("__")]
    assert len(own) <= LARGEST_FOLDER
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert docstring, f"{package}/__init__.py has no docstring"
    if package.parent != ROOT:
        assert "import" in docstring, "it does not say what the package may import"


def test_a_module_is_no_longer_than_one_concept() -> None:
    lengths = {str(module.relative_to(ROOT)): len(module.read_text().splitlines()) for module in modules()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_a_public_class_name_has_one_class() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for module in modules():
        if "_sync" in module.parts:  # generated: each class of it has its asynchronous twin's name
            continue
        for node in ast.parse(module.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(module.relative_to(ROOT)))
    several = {name: where for name, where in homes.items() if len(where) > 1 and name not in TWO_FORMS}
    assert several == {}


@pytest.mark.parametrize("room", ROOMS)
def test_tests_mirror_the_packages(room: str) -> None:
    folders = {
        path.relative_to(ROOT / "tests").as_posix()
        for path in (ROOT / "tests" / room).rglob("*")
        if path.is_dir() and any(path.glob("test_*.py")) and path.name not in OWN_FOLDERS
    }
    assert {folder for folder in folders if not (ROOT / folder).is_dir()} == set()


@pytest.mark.parametrize("package", packages(), ids=lambda package: str(package.relative_to(ROOT)))
def test_the_modules_that_a_package_names_are_there(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    room = ROOT / package.relative_to(ROOT).parts[0]
    lost = [
        name
        for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)`", docstring)
        if not any(_leads_to(beside, name) for beside in (package, room, ROOT))
    ]
    assert lost == []


def test_dotted_names_in_comments_and_pages_are_there() -> None:
    """Such as `workers.queue.leases.Leases`: a module, and a word that is in it."""
    written = [*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder in (*ROOMS, "benchmarks", "tools", "tests"):
        written += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.lua")]
    lost = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in written
        for name in re.findall(r"(?<!`)`((?:proxygrad|workers|service)(?:\.\w+)+)`(?!`)", path.read_text())
        if not _leads_to(ROOT, name)
    }
    assert lost == set()


def _leads_to(folder: Path, name: str) -> bool:
    """Whether a dotted name is a package or module below ``folder``, or a word in one."""
    parts = name.split(".")
    if parts[-1] == "toml":
        return True
    for length in range(len(parts), 0, -1):
        path = folder.joinpath(*parts[:length])
        module = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if module.is_file():
            rest = parts[length:]
            return not rest or re.search(rf"\b{rest[0]}\b", module.read_text()) is not None
    return False
