"""Commands sent together have the outcomes that they have alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from workers.broker.connection import connect
from workers.broker.pipeline import Operation, RedisCommand, execute_together, run_blocking
from workers.broker.scripts import Script
from workers.jobs.queries import StatusQuery
from workers.jobs.repository import Job, Jobs


def increment(by: int) -> RedisCommand[int]:
    return RedisCommand(lambda client: client.incrby("count", by), int)


def test_each_has_its_own_outcome_in_its_place(redis: Redis) -> None:
    redis.set("text", "abc")

    def refuse(reply: bytes) -> None:
        raise ValueError(reply)

    first, wrong, unread, last = execute_together(
        redis,
        [
            increment(2),
            RedisCommand(lambda client: client.hget("text", "field"), str),
            RedisCommand(lambda client: client.get("text"), refuse),
            increment(3),
        ],
    )
    assert (first, last) == (2, 5)
    assert isinstance(wrong, ResponseError)
    assert (type(unread), unread.args) == (ValueError, (b"abc",))


def test_a_script_that_redis_forgot_is_told_again(redis: Redis, jobs: Jobs) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(3)]
    looks, position = StatusQuery(redis), Script(redis, "queue/position")
    for _ in range(2):
        redis.script_flush()
        seen = execute_together(redis, [looks(job_id) for job_id in ids])
        assert [job.id for job, _ in seen] == ids
        places = execute_together(redis, [position.command(job_id) for job_id in ids])
        assert places == [0, 1, 2]


def test_without_redis_none_is_answered_for(redis_url: str) -> None:
    client = connect("unix:///nowhere/valkey.sock", retries=0)
    with pytest.raises(RedisConnectionError):
        execute_together(client, [increment(1), increment(1)])


def test_steps_hear_what_failed_and_may_go_on(redis: Redis) -> None:
    def steps() -> Operation[list[Any]]:
        seen: list[Any] = [(yield increment(1))]
        try:
            yield RedisCommand(lambda client: client.hget("count", "field"), str)
        except ResponseError:
            seen.append("no hash")
        seen.append((yield lambda: "blocked"))
        return seen

    assert run_blocking(steps(), redis) == [1, "no hash", "blocked"]


@pytest.mark.parametrize("fails", [increment(1), lambda: 1])
def test_what_steps_raise_is_raised(redis: Redis, fails: RedisCommand[int] | Callable[[], int]) -> None:
    def steps() -> Operation[None]:
        yield fails
        raise LookupError

    with pytest.raises(LookupError):
        run_blocking(steps(), redis)


def test_what_takes_no_step_is_done(redis: Redis) -> None:
    def steps() -> Operation[Job | None]:
        return None
        yield

    assert run_blocking(steps(), redis) is None
