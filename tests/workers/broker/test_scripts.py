"""The loader of Lua scripts: includes, constants, flags and replies."""

from __future__ import annotations

import pytest
from redis import Redis

from workers.broker import keys, limits, rq_names, scripts
from workers.broker.scripts import Flags, Script, compiled, pairs, source


def test_constants_stand_before_the_text_where_they_are_used() -> None:
    text = compiled("return {KEY.JOBS, KEY.JOB_PREFIX, RQ.QUEUE, LIMIT.MAX_LOSSES}\n-- not KEY.DEADLINES\n")
    assert text.split("\n")[:3] == [
        f'local KEY = {{JOBS = "{keys.JOBS_KEY}", JOB_PREFIX = "{keys.JOB_PREFIX}"}}',
        f"local LIMIT = {{MAX_LOSSES = {limits.MAX_LOSSES}}}",
        f'local RQ = {{QUEUE = "{rq_names.QUEUE_KEY}"}}',
    ]


def test_an_unknown_constant_is_an_error() -> None:
    with pytest.raises(AttributeError, match="NOTHING"):
        compiled("return KEY.NOTHING")


def test_an_unknown_file_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        source("jobs/nothing")
    with pytest.raises(FileNotFoundError):
        compiled("-- @include lib/nothing\n")


def test_a_library_stands_once_and_before_what_includes_it() -> None:
    text = compiled("-- @include lib/clock\n-- @include lib/rq\nreturn rq_time()")
    assert text.count("local function exact(") == 1
    assert text.index("local function exact(") < text.index("local function rq_time(")
    assert "@include" not in text


def test_a_cycle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"a": "-- @include b\n", "b": "-- @include c\n", "c": "-- @include a\n"}
    monkeypatch.setattr(scripts, "_read", lambda name, package: texts[name])
    with pytest.raises(ValueError, match="a -> b -> c -> a"):
        compiled("-- @include a\n")


def test_other_flags_take_the_place_of_those_of_the_file(redis: Redis) -> None:
    texts = []
    choices: tuple[Flags | None, ...] = (None, "allow-oom")
    for flags in choices:
        script = Script(redis, "jobs/submit", flags=flags)
        texts.append(str(script._script.script).partition("\n"))
    (own, _, one), (other, _, two) = texts
    assert (own, other) == ("#!lua", "#!lua flags=allow-oom")
    assert one == two


def test_replies_are_decoded(redis: Redis) -> None:
    redis.hset(keys.job_key("a"), mapping={"state": "failed", "step": 3})
    assert Script(redis, "jobs/cancel", decode="pairs")("a", "") == {"state": "failed", "step": "3"}
    assert Script(redis, "jobs/forget", decode="text")("a", "token", 1, "") == "wanted"
    assert pairs([b"a", b"1", b"b", b"2"]) == {b"a": b"1", b"b": b"2"}
    command = Script(redis, "queue/position").command("a", read=lambda rank: rank + 1)
    assert command(redis) == 0
