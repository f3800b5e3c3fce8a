"""docs/redis.md names every key, channel and Lua file, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.workers.lua.test_lua_files import FILES
from tests.workers.scenarios.test_redis_names import KEYS
from workers.broker import keys
from workers.jobs.job import Job
from workers.jobs.kinds.registry import KINDS

PAGE = (Path(__file__).parents[3] / "docs/redis.md").read_text()
KEY_SECTIONS, CHANNELS, SCRIPTS = re.split(r"^## (?:Channels|Scripts)$", PAGE, flags=re.MULTILINE)
TYPES = {"sorted set": "zset"}


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables, without their heads."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| `.*", text, re.M)
    ]
    assert found
    return found


def prefix(cell: str) -> str:
    """The part of a key or channel before what is filled in."""
    return cell.strip("`").partition("{")[0]


def test_every_key_is_there() -> None:
    names = {value for name, value in vars(keys).items() if name.endswith(("_KEY", "_PREFIX"))}
    names.remove(keys.PRESENCE_CHANNEL_PREFIX)
    assert {prefix(row[0]) for row in rows(KEY_SECTIONS)} == names


def test_every_channel_is_there() -> None:
    names = {value for name, value in vars(keys).items() if "CHANNEL" in name and name.isupper()}
    assert {prefix(row[0]) for row in rows(CHANNELS)} == names | {keys.EVENTS_PREFIX}


def test_types_are_those_in_redis() -> None:
    types = [
        (re.sub(r"\\{\w+\\}", ".+", re.escape(row[0].strip("`"))), TYPES.get(row[1], row[1]))
        for row in rows(KEY_SECTIONS)
    ]
    seen = [line.split(" ") for line in KEYS.split("\n") if line.startswith("proxygrad:")]
    for key, kind in seen:
        matching = {(len(pattern), name) for pattern, name in types if re.fullmatch(pattern, key)}
        assert matching, f"{key} is missing"
        assert max(matching)[1] == kind, key


def test_fields_of_one_kind_are_named_in_the_row_of_jobs() -> None:
    (row,) = (row for row in rows(KEY_SECTIONS) if prefix(row[0]) == keys.JOB_PREFIX)
    own = {name for kind in KINDS.values() for name in kind.record.model_fields} - Job.model_fields.keys()
    assert own == {"images", "best", "files"}
    assert own <= set(re.findall(r"`(\w+)`", row[2]))


def test_every_lua_file_is_there() -> None:
    for package in ("workers", "service"):
        section = SCRIPTS[SCRIPTS.index(f"### `{package}/lua/`") :].split("\n### ")[0]
        names = {name for room, name in FILES if room == package}
        assert {row[0].strip("`") for row in rows(section)} == names
        assert all(purpose for _, purpose in rows(section))
