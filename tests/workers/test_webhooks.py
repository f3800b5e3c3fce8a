"""Claims of deliveries: leases, room for each receiver, another try, the log."""

from __future__ import annotations

from typing import cast

from redis import Redis

from tests.support.eventually import at_once
from workers.broker.connection import connect
from workers.broker.keys import RECEIVERS_KEY, delivery_key, due_deliveries_key
from workers.jobs.commands import DeliverNow
from workers.webhooks import Deliveries, DeliveryRecord

A, B = "https://a.example", "https://b.example:8443"


def tell(redis: Redis, count: int, url: str = A, caller: str = "one", start: int = 0) -> None:
    for number in range(start, start + count):
        DeliverNow(redis)("visualization", f"{number:032}", caller, f"{url}/{number}", float(number))


def claim(redis: Redis, most: int = 100, most_each: int = 100, **busy: int) -> list[DeliveryRecord]:
    return Deliveries(redis).claim(most, most_each, 60, busy)


def lease_over(redis: Redis, receiver: str = A) -> None:
    """As if the lease had ended."""
    for delivery in cast(list[bytes], redis.zrange(due_deliveries_key(receiver), 0, -1)):
        redis.zadd(due_deliveries_key(receiver), {delivery: 1})
    redis.zadd(RECEIVERS_KEY, {receiver: 1})


def test_one_is_claimed_once_until_its_lease_ends(redis: Redis) -> None:
    tell(redis, 1)
    (first,) = claim(redis)
    assert (first.attempts, first.tried) == (1, 1)
    assert claim(redis) == []
    lease_over(redis)
    (second,) = claim(redis)
    assert (second.id, second.attempts) == (first.id, 2)
    deliveries = Deliveries(redis)
    assert not deliveries.settle(first, "delivered", 200, None)
    assert deliveries.settle(second, "delivered", 204, None)
    assert not deliveries.settle(second, "delivered", 204, None)
    kept = deliveries.fetch(first.id)
    assert kept is not None
    assert (kept.state, kept.status, kept.next_at) == ("delivered", 204, None)
    assert redis.zcard(due_deliveries_key(A)) == redis.zcard(RECEIVERS_KEY) == 0


def test_of_many_who_claim_each_delivery_goes_to_one(redis: Redis, redis_url: str) -> None:
    tell(redis, 40)
    got: list[str] = []

    def work(number: int) -> None:
        with connect(redis_url) as client:
            while found := Deliveries(client).claim(3, 100, 60, {}):
                got.extend(each.id for each in found)

    at_once(work, range(8))
    assert len(got) == len(set(got)) == 40


def test_a_receiver_has_no_more_under_way_than_it_may_and_holds_up_no_other(redis: Redis) -> None:
    tell(redis, 10, A)
    tell(redis, 2, B, start=10)
    found = Deliveries(redis).claim(100, 4, 60, {A: 3})
    assert sorted(each.receiver for each in found) == [A, B, B]
    assert Deliveries(redis).claim(100, 4, 60, {A: 4}) == []
    assert len(Deliveries(redis).claim(2, 4, 60, {})) == 2


def test_one_that_failed_waits_for_its_time(redis: Redis) -> None:
    tell(redis, 1)
    (first,) = claim(redis)
    deliveries = Deliveries(redis)
    assert deliveries.settle(first, "pending", None, "no connection", 300)
    assert claim(redis) == []
    kept = deliveries.fetch(first.id)
    assert kept is not None
    assert kept.next_at is not None
    assert kept.tried_at is not None
    assert 299 < kept.next_at - kept.tried_at < 301
    assert (kept.state, kept.status, kept.error) == ("pending", None, "no connection")
    assert deliveries.retry(first.id)
    (again,) = claim(redis)
    assert (again.attempts, again.tried) == (2, 1)


def test_one_that_is_still_tried_outlives_its_week(redis: Redis) -> None:
    tell(redis, 1)
    (first,) = claim(redis)
    redis.expire(delivery_key(first.id), 5)
    assert Deliveries(redis).settle(first, "pending", 429, None, 86_400)
    assert redis.ttl(delivery_key(first.id)) > 6 * 86_400
    redis.expire(delivery_key(first.id), 5)
    assert Deliveries(redis).retry(first.id)
    assert redis.ttl(delivery_key(first.id)) > 6 * 86_400


def test_one_under_way_is_left_to_that(redis: Redis) -> None:
    tell(redis, 1)
    (first,) = claim(redis)
    deliveries = Deliveries(redis)
    assert deliveries.retry(first.id)
    assert claim(redis) == []
    assert deliveries.settle(first, "exhausted", 500, None)
    assert deliveries.retry(first.id)
    assert len(claim(redis)) == 1
    assert not deliveries.retry("f" * 32)


def test_what_was_removed_is_not_claimed(redis: Redis) -> None:
    tell(redis, 1)
    redis.delete(*redis.keys("proxygrad:delivery:*"))
    assert claim(redis) == []
    assert redis.zcard(due_deliveries_key(A)) == redis.zcard(RECEIVERS_KEY) == 0


def test_the_log_has_pages_and_each_caller_its_own(redis: Redis) -> None:
    tell(redis, 5, caller="one")
    tell(redis, 2, caller="two", start=5)
    deliveries = Deliveries(redis)
    page, end = deliveries.recent(None, 2, 100, lambda _: True, caller="one")
    rest, last = deliveries.recent(end, 10, 100, lambda _: True, caller="one")
    assert [each.activation for each in page + rest] == [4, 3, 2, 1, 0]
    assert last is None
    assert len(deliveries.recent(None, 10, 100, lambda _: True, caller=None)[0]) == 7
    found, end = deliveries.recent(None, 10, 3, lambda each: each.activation == 0, caller="one")
    assert found == []
    assert end is not None


def test_what_a_later_version_wrote_is_left_to_it_and_holds_up_nothing(redis: Redis) -> None:
    tell(redis, 3)
    later = Deliveries(redis).recent(None, 1, 9, lambda _: True, caller=None)[0][0]
    redis.hset(delivery_key(later.id), mapping={"kind": "later", "more": "x"})
    assert len(claim(redis)) == 2
    assert len(Deliveries(redis).recent(None, 9, 9, lambda _: True, caller=None)[0]) == 2
    redis.hset(delivery_key(later.id), "kind", "batch")
    assert Deliveries(redis).fetch(later.id) is not None


def test_slow_receivers_with_much_to_come_do_not_take_all_places(redis: Redis) -> None:
    for number in range(8):
        tell(redis, 50, f"https://slow{number}.example", start=100 * number)
    under_way = claim(redis, most=32, most_each=4)
    assert len(under_way) == 32
    tell(redis, 1, "https://quick.example", caller="two", start=9000)
    slow = under_way[0]
    Deliveries(redis).settle(slow, "pending", None, "no answer", 300)
    busy = dict.fromkeys({each.receiver for each in under_way}, 4) | {slow.receiver: 3}
    assert [each.receiver for each in claim(redis, most=1, most_each=4, **busy)] == ["https://quick.example"]
