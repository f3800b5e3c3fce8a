"""Lua files: each has a header, loads, includes what it uses, and is used."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from tools.lint_lua import faults
from workers.broker.rq_names import timestamp
from workers.broker.scripts import compiled, source

ROOT = Path(__file__).parents[3]


def lua_files(package: str, folder: Traversable | None = None, above: str = "") -> dict[str, str]:
    """The text of every Lua file of a package as it is installed, by its name."""
    found: dict[str, str] = {}
    for entry in (folder or files(package).joinpath("lua")).iterdir():
        if entry.is_dir():
            found |= lua_files(package, entry, f"{above}{entry.name}/")
        elif entry.name.endswith(".lua"):
            found[f"{above}{entry.name.removesuffix('.lua')}"] = entry.read_text(encoding="utf-8")
    return found


FILES = {
    (package, name): text for package in ("workers", "service") for name, text in lua_files(package).items()
}
SCRIPTS = sorted(each for each in FILES if not each[1].startswith("lib/"))
LIBRARIES = sorted(each for each in FILES if each[1].startswith("lib/"))


def includes(text: str) -> list[str]:
    return re.findall(r"^-- @include (\S+)$", text, re.MULTILINE)


def code(text: str) -> str:
    return re.sub(r"'[^'\n]*'|--.*", "", text)


def defined(text: str) -> set[str]:
    """Names of the functions and variables of a file that others may use."""
    found = set(re.findall(r"^local function (\w+)", text, re.MULTILINE))
    for names in re.findall(r"^local (?!function)([\w, ]+?) *=", text, re.MULTILINE):
        found |= set(names.split(", "))
    return found


def test_they_are_package_data() -> None:
    assert {"jobs/submit", "queue/take_lease", "lib/keys"} <= {name for _, name in FILES}
    assert ("service", "auth/take_token") in FILES


@pytest.mark.parametrize(("package", "name"), SCRIPTS)
def test_a_script_says_what_it_does(package: str, name: str) -> None:
    lines = FILES[package, name].split("\n")
    assert re.fullmatch(r"#!lua( flags=(allow-oom|no-writes))?", lines[0])
    header = lines[1 : lines.index("")]
    assert all(line.startswith("-- ") for line in header)
    kinds = [line.split(":")[0] for line in header if re.match(r"-- (ARGV|Returns): ", line)]
    assert kinds == ["-- ARGV", "-- Returns"]


@pytest.mark.parametrize(("package", "name"), SCRIPTS)
def test_arguments_are_named_first(package: str, name: str) -> None:
    """Later arguments, of which there may be any number, have indexes in the code."""
    text = FILES[package, name]
    argv = re.sub(r"\n--  ", "", text[text.index("-- ARGV: ") : text.index("\n-- Returns:")])
    numbers = [int(number) for number in re.findall(r"(?:: |, |; |and )(\d+)…? ", argv)]
    assert numbers == list(range(1, len(numbers) + 1)), argv
    fixed = len(numbers) - argv.count("…")
    named = 0
    for names, first in re.findall(r"^local ([\w, ]+) = unpack\(ARGV(?:, (\d+))?\)$", text, re.MULTILINE):
        assert int(first or 1) == named + 1
        named += len(names.split(", "))
    assert named == fixed


@pytest.mark.parametrize(("package", "name"), SCRIPTS)
def test_a_script_compiles_and_uses_no_undeclared_global(redis: Redis, package: str, name: str) -> None:
    assert faults(redis, source(name, package)) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("local x =", "unexpected symbol"),
        ("return undeclared", "line 2 uses the global 'undeclared'"),
        ("if false then total = 1 end", "line 2 assigns the global 'total'"),
        ("local function f() return function() return other end end\nreturn f", "'other'"),
    ],
)
def test_what_is_wrong_is_found(redis: Redis, text: str, fault: str) -> None:
    (found,) = faults(redis, f"#!lua\n{text}")
    assert fault in found


@pytest.mark.parametrize(("package", "name"), LIBRARIES)
def test_a_library_says_what_it_is_and_is_included(package: str, name: str) -> None:
    assert package == "workers"
    assert re.match(r"-- [A-Z].*", FILES[package, name])
    assert any(name in includes(text) for text in FILES.values())


@pytest.mark.parametrize(("package", "name"), sorted(FILES))
def test_a_file_includes_what_it_uses_and_no_more(package: str, name: str) -> None:
    text = FILES[package, name]
    words = set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", code(text))) - defined(text)
    needed = {library for _, library in LIBRARIES if words & defined(FILES["workers", library])}
    assert includes(text) == sorted(needed)


def test_every_script_is_used() -> None:
    python = "\n".join(
        file.read_text() for room in ("workers", "service") for file in sorted((ROOT / room).rglob("*.py"))
    )
    used = set(re.findall(r'Script\(\s*\w+,\s*"([\w/]+)"', python))
    assert used == {name for _, name in SCRIPTS}


def test_all_together_are_no_larger_than_they_were() -> None:
    """An include too many shows here: each script carries what it needs. In bytes."""
    assert sum(len(source(name, package)) for package, name in SCRIPTS) < 800_000


@pytest.mark.parametrize("seconds", [0, 951_782_399, 951_868_800, 1_709_208_000, 4_102_444_799])
def test_a_time_is_written_as_rq_writes_it(redis: Redis, seconds: int) -> None:
    from datetime import UTC, datetime

    from rq.utils import utcformat

    body = compiled("-- @include lib/rq\nreturn format_rq_time(tonumber(ARGV[1]), tonumber(ARGV[2]))")
    written = cast(bytes, redis.eval(body, 0, seconds, 7)).decode()
    assert written == utcformat(datetime.fromtimestamp(seconds, UTC).replace(microsecond=7))
    assert len(timestamp()) == len(written)
