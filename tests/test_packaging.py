"""The distribution: what the wheel carries, which commands it names, which versions it pins."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from proxygrad.version import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("proxygrad", "service", "workers")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS: dict[str, str] = PROJECT["entry-points"]["proxygrad.commands"]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from this tree, without those about the wheel itself."""
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling, of the extra `dev`")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _in_tree() -> set[str]:
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_carries_every_file_of_the_three_packages_and_no_other(wheel: set[str]) -> None:
    assert wheel == _in_tree()


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(wheel: set[str], package: str) -> None:
    assert f"{package}/py.typed" in wheel


def test_the_wheel_carries_the_bundled_network_and_its_card(wheel: set[str]) -> None:
    suffixes = {Path(name).suffix for name in wheel if name.startswith("proxygrad/models/")}
    assert {".safetensors", ".md"} <= suffixes


@pytest.mark.engine
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_a_module_with_help_arguments_and_run(command: str) -> None:
    module = import_module(COMMANDS[command])
    assert isinstance(module.HELP, str)
    assert callable(module.add_arguments)
    assert callable(module.run)


def test_the_console_script_is_a_function() -> None:
    module, _, function = PROJECT["scripts"]["proxygrad"].partition(":")
    assert callable(getattr(import_module(module), function))


def test_the_version_has_its_place_in_the_changelog() -> None:
    versions = re.findall(
        r"^## \[(\d[^\]]*)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert versions[0] == __version__


def test_constraints_are_exact_and_hold_on_every_platform() -> None:
    assert PINS
    for pin in PINS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin), f"{pin!r} is not NAME==VERSION"
        assert not re.match(r"nvidia|cuda|triton", pin), f"{pin!r} exists for some platforms only"


def test_constraints_pin_every_dependency_that_is_named() -> None:
    pinned = {_canonical(pin.partition("==")[0]) for pin in PINS}
    extras = PROJECT["optional-dependencies"].values()
    requirements = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    named = {_canonical(re.split(r"[\[<>=!;~ ]", line, maxsplit=1)[0]) for line in requirements}
    assert named - {PROJECT["name"]} <= pinned


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_file_names_a_place_on_this_machine() -> None:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so it is not known which files belong to the project")
    places = [f"{place}/".encode() for place in (ROOT, Path.home()) if len(place.parts) > 1]
    paths = [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]
    assert not [path for path in paths if any(place in path.read_bytes() for place in places)]
