"""The distribution: what the wheel carries, which commands it names, which versions it pins."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from proxygrad.version import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("proxygrad", "service", "workers")
#: What other people's environments get; the rest is an application.
PACKAGED = "proxygrad"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS: dict[str, str] = PROJECT["entry-points"]["proxygrad.commands"]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def wheel_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this tree."""
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling, of the extra `dev`")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(wheel_path: Path) -> set[str]:
    """The names of the files in the wheel, without those about the wheel itself."""
    with zipfile.ZipFile(wheel_path) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _in_tree() -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / PACKAGED).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_carries_every_file_of_its_package_and_no_other(wheel: set[str]) -> None:
    assert wheel == _in_tree()


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.fixture(scope="module")
def client_environment(wheel_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an empty environment in which the wheel is installed with the extra `client`."""
    folder = tmp_path_factory.mktemp("client") / "venv"
    venv.create(folder, with_pip=False)
    scripts = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "--quiet"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    command = [*pip, *constraints, f"{wheel_path}[client]"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "No matching distribution found" in done.stderr or "No module named pip" in done.stderr:
            pytest.skip(f"needs pip and a package index: {done.stderr.strip().splitlines()[-1]}")
        pytest.fail(done.stderr)
    return scripts


_LIGHT = """
import sys, time
began_s = time.perf_counter()
from proxygrad.client import Client
with Client():
    print(f"import and first client: {time.perf_counter() - began_s:.3f} s, {len(sys.modules)} modules")
import proxygrad
assert proxygrad.Client is Client
from importlib.util import find_spec
heavy = ["fastapi", "numpy", "obstore", "PIL", "redis", "rq", "service", "starlette", "torch", "workers"]
assert not (found := [name for name in heavy if find_spec(name)]), found
"""

#: On an idle machine it takes less than 0.4 s.
LIGHT_S = 4.0


def test_the_client_installs_alone_and_starts_fast(client_environment: Path) -> None:
    command = [str(client_environment / "python"), "-I", "-W", "error", "-c", _LIGHT]
    subprocess.run(command, capture_output=True, check=True)  # compiles what it imports
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout, end="")
    assert float(done.stdout.split(":")[1].split()[0]) < LIGHT_S


def test_without_the_checkout_the_command_lists_what_the_wheel_has(client_environment: Path) -> None:
    command = [str(client_environment / "proxygrad")]
    listed = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert {name for name in COMMANDS if re.search(rf"^    {name}\s", listed, re.M)} == {
        name for name, module in COMMANDS.items() if module.startswith(f"{PACKAGED}.")
    }
    render = [*command, "render", "digits", "fc", "0"]
    refused = subprocess.run(render, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "'.[engine]'" in refused.stderr
    submit = [*command, "submit", "digits", "fc", "0", "--url", "x"]
    refused = subprocess.run(submit, capture_output=True, text=True, check=False)
    assert (refused.returncode, "not the address of a server" in refused.stderr) == (1, True)


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
