"""The bucket: what fits into a minute, and what callers are told."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis as redis_client

from service.auth.rate_limit import Allowance, RateLimiter
from tests.support.stepped_clock import stepped_valkey
from workers.broker.connection import connect


def test_a_minutes_worth_may_be_taken_at_once_and_no_more(redis: redis_client.Redis) -> None:
    rates = RateLimiter(redis)
    taken = [rates.take("a", 5)(redis) for _ in range(7)]
    assert [each.granted for each in taken] == [True] * 5 + [False] * 2
    assert [each.left for each in taken] == [4, 3, 2, 1, 0, 0, 0]
    assert taken[-1].retry_after_s in (11, 12)
    assert rates.take("b", 5)(redis).granted, "each key has its own"


def test_of_many_at_once_exactly_as_many_are_granted(redis: redis_client.Redis) -> None:
    rates = RateLimiter(redis)
    began_s = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: rates.take("a", 50)(redis).granted, range(200)))
    back = (time.monotonic() - began_s) * 50 / 60
    assert 50 <= sum(taken) <= 52 + back, "some may have come back meanwhile"


def test_it_fills_at_its_rate(redis: redis_client.Redis) -> None:
    rates = RateLimiter(redis)
    while (last := rates.take("a", 600)(redis)).granted:
        before_s = time.monotonic()
    assert last.retry_after_s == 1
    time.sleep(0.25)
    taken = [rates.take("a", 600)(redis).granted for _ in range(50)]
    most = 2 + 10 * (time.monotonic() - before_s)
    assert 2 <= sum(taken) <= most, "ten a second"


def test_a_refusal_costs_nothing(redis: redis_client.Redis) -> None:
    rates = RateLimiter(redis)
    rates.take("a", 1)(redis)
    waits = [rates.take("a", 1)(redis).full_in_s for _ in range(50)]
    assert max(waits) <= 60


def test_what_is_kept_goes_by_itself(redis: redis_client.Redis) -> None:
    RateLimiter(redis).take("a", 60)(redis)
    assert 0 < redis.pttl("proxygrad:requests:a") <= 1001


def test_it_works_in_a_full_redis(redis: redis_client.Redis) -> None:
    redis.config_set("maxmemory", 1)
    try:
        assert RateLimiter(redis).take("a", 5)(redis).granted
    finally:
        redis.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    ("allowance", "left", "retry_after_s"),
    [
        (Allowance(True, 60, 1.0), 59, 1),
        (Allowance(True, 60, 59.5), 0, 1),
        (Allowance(False, 60, 60.0), 0, 1),
        (Allowance(False, 1, 60.0), 0, 60),
        (Allowance(True, 1_000_000, 0.00006), 999_999, 1),
    ],
)
def test_what_is_left_is_counted_in_whole_requests(
    allowance: Allowance, left: int, retry_after_s: int
) -> None:
    assert (allowance.left, allowance.retry_after_s) == (left, retry_after_s)


def test_the_headers_are_those_of_the_draft() -> None:
    assert Allowance(True, 100, 30.2).headers == {
        "RateLimit-Policy": '"requests";q=100;w=60',
        "RateLimit": '"requests";r=49;t=31',
    }


def test_a_clock_that_is_set_back_refuses_nobody(tmp_path: Path) -> None:
    with stepped_valkey(tmp_path) as (server, clock), connect(server.url) as redis:
        rates = RateLimiter(redis)
        while (last := rates.take("a", 3)(redis)).granted:
            pass
        assert last.retry_after_s in (19, 20)
        clock.step(-3600)
        assert [rates.take("a", 3)(redis).granted for _ in range(4)] == [True] * 3 + [False]
        clock.step(3600)
        assert rates.take("a", 3)(redis).granted
