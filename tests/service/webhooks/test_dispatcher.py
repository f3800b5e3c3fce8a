"""What gateways do with deliveries: attempts, another try, the end; slow receivers; gateways that die."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from standardwebhooks import Webhook

from proxygrad.protocol.webhooks import DeliveryState
from service.addresses import networks
from service.app import create_app
from service.settings import ServiceSettings
from service.webhooks.dispatcher import MOST_EACH, SCHEDULE_S, Deliverer, delivering
from service.webhooks.events import payload
from service.webhooks.sender import Sender
from service.webhooks.signing import Signer
from service.webhooks.urls import AllowedHosts
from tests.service.server.test_run import gateway
from tests.support.eventually import until
from tests.support.webhook_receiver import Receiver, receiving
from workers.broker.keys import RECEIVERS_KEY, due_deliveries_key
from workers.jobs.commands import DeliverNow
from workers.webhooks import Deliveries, DeliveryRecord

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"
LOOPBACK = networks(["127.0.0.1/32"])


def tell(redis: Redis, url: str, number: int = 0) -> str:
    """A delivery is due; its id."""
    DeliverNow(redis)("visualization", f"{number:032}", "one", url, 1.5)
    return listed(redis)[0].id


def listed(redis: Redis) -> list[DeliveryRecord]:
    return Deliveries(redis).recent(None, 1000, 1000, lambda _: True, caller=None)[0]


async def now() -> float:
    return time.time()


def deliver(
    redis: Redis,
    receivers: Sequence[str],
    done: Callable[[], bool],
    schedule_s: Sequence[float] = (0, 0),
    attempt_s: float = 20,
    public_url: str = "",
) -> None:
    """A gateway's part, until `done`."""
    deliverer = Deliverer(
        Deliveries(redis),
        Sender(LOOPBACK, attempt_s=attempt_s),
        AllowedHosts(receivers),
        Signer(SECRET),
        now,
        schedule_s=schedule_s,
        public_url=public_url,
    )

    async def run() -> None:
        task = asyncio.create_task(deliverer.run())
        try:
            await asyncio.to_thread(until, done, 30)
        finally:
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(run())


def is_in(redis: Redis, delivery_id: str, *states: DeliveryState) -> Callable[[], bool]:
    def look() -> bool:
        found = Deliveries(redis).fetch(delivery_id)
        return found is not None and found.state in states

    return look


def kept(redis: Redis, delivery_id: str) -> DeliveryRecord:
    found = Deliveries(redis).fetch(delivery_id)
    assert found is not None
    return found


def test_it_arrives_signed_and_is_verified_by_the_library(redis: Redis) -> None:
    with receiving() as receiver:
        delivery_id = tell(redis, f"{receiver.url}/hook?a=b")
        deliver(redis, [receiver.url], is_in(redis, delivery_id, "delivered"))
        (got,) = receiver.received
    event = Webhook(Signer(SECRET).secrets("one")[0]).verify(got.body, got.headers)
    assert got.headers["webhook-id"] == delivery_id
    assert got.path == "/hook?a=b"
    assert event["type"] == "visualization.succeeded"
    assert event["data"] == {
        "id": "0" * 32,
        "state": "succeeded",
        "achieved_activation": 1.5,
        "problem": None,
        "links": {"self": f"/v1/visualizations/{'0' * 32}"},
    }
    found = kept(redis, delivery_id)
    assert (found.status, found.attempts, found.next_at) == (204, 1, None)


def test_its_link_is_whole_where_the_public_url_is_known(redis: Redis) -> None:
    with receiving() as receiver:
        delivery_id = tell(redis, receiver.url)
        deliver(
            redis, [receiver.url], is_in(redis, delivery_id, "delivered"), public_url="https://a.example/viz"
        )
        (got,) = receiver.received
    link = json.loads(got.body)["data"]["links"]["self"]
    assert link == f"https://a.example/viz/v1/visualizations/{'0' * 32}"


def test_a_gateway_knows_it_by_its_setting(redis: Redis, settings: ServiceSettings) -> None:
    with receiving() as receiver:
        environ = {
            "REDIS_URL": settings.redis_url or "",
            "PROXYGRAD_HOME": str(settings.home),
            "PROXYGRAD_PUBLIC_URL": "https://a.example/viz/",
            "PROXYGRAD_WEBHOOK_HOSTS": receiver.url,
            "PROXYGRAD_WEBHOOK_PRIVATE": "127.0.0.1/32",
            "PROXYGRAD_WEBHOOK_SECRET": SECRET,
        }
        app = create_app(ServiceSettings.from_env(environ))
        tell(redis, receiver.url)

        async def run() -> None:
            async with app.router.lifespan_context(app):
                await asyncio.to_thread(until, lambda: bool(receiver.received))

        asyncio.run(run())
    link = json.loads(receiver.received[0].body)["data"]["links"]["self"]
    assert link.startswith("https://a.example/viz/v1/visualizations/")


def test_a_batch_s_event_has_its_counts() -> None:
    counts = {"total": 3, "succeeded": 2, "failed": 1, "canceled": 0}
    known: dict[str, str | int | float] = {
        "kind": "batch",
        "subject": "b" * 32,
        "caller": "one",
        "url": "https://a.example/",
        "receiver": "https://a.example",
        "ended": "failed",
        "created_at": 1767225600.25,
        "state": "pending",
        "attempts": 0,
        "tried": 0,
        **counts,
    }
    fields = {name.encode(): str(value).encode() for name, value in known.items()}
    delivery = DeliveryRecord.from_fields("0" * 32, fields)
    event = json.loads(payload(delivery))
    assert (event["type"], event["timestamp"]) == ("batch.ended", "2026-01-01T00:00:00.250Z")
    assert event["data"]["counts"] == counts
    assert event["data"]["links"] == {"self": f"/v1/batches/{'b' * 32}"}


def test_it_is_tried_again_with_the_same_id_and_body(redis: Redis) -> None:
    with receiving(lambda number: ([500, 302, 200][number - 1], {"Location": "/x"})) as receiver:
        delivery_id = tell(redis, receiver.url)
        deliver(redis, [receiver.url], is_in(redis, delivery_id, "delivered", "exhausted"))
        got = receiver.received
    assert kept(redis, delivery_id).state == "delivered"
    assert len(got) == 3
    assert len({(each.path, each.headers["webhook-id"], each.body) for each in got}) == 1


def test_after_the_last_attempt_it_is_exhausted_and_the_log_says_so_without_the_path(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(lambda _: (500, {})) as receiver, caplog.at_level(logging.WARNING):
        delivery_id = tell(redis, f"{receiver.url}/token-1?secret=2")
        deliver(redis, [receiver.url], is_in(redis, delivery_id, "delivered", "exhausted"))
        assert len(receiver.received) == 3
    found = kept(redis, delivery_id)
    assert (found.state, found.status, found.attempts, found.next_at) == ("exhausted", 500, 3, None)
    (line,) = [record.getMessage() for record in caplog.records if "exhausted" in record.getMessage()]
    assert delivery_id in line
    assert "status 500" in line
    assert "token-1" not in caplog.text
    assert "secret" not in caplog.text


def test_410_ends_it(redis: Redis) -> None:
    with receiving(lambda _: (410, {})) as receiver:
        delivery_id = tell(redis, receiver.url)
        deliver(redis, [receiver.url], is_in(redis, delivery_id, "gone"))
        assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("retry_after", "least_s", "most_s"), [(None, 300, 330), ("1000", 1000, 1000), ("9999999", 86400, 86400)]
)
def test_it_waits_as_planned_or_as_the_receiver_says(
    redis: Redis, retry_after: str | None, least_s: float, most_s: float
) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    with receiving(lambda _: (503, headers)) as receiver:
        delivery_id = tell(redis, receiver.url)
        deliver(redis, [receiver.url], lambda: kept(redis, delivery_id).tried_at is not None, [300])
    found = kept(redis, delivery_id)
    assert found.next_at is not None
    assert found.tried_at is not None
    assert least_s - 0.01 <= found.next_at - found.tried_at <= most_s + 0.01


def test_the_schedule_ends_before_deliveries_are_forgotten() -> None:
    assert len(SCHEDULE_S) == 9
    assert sum(SCHEDULE_S) * 1.1 < 7 * 86400


def test_a_host_that_is_not_allowed_any_more_is_not_called(redis: Redis) -> None:
    with receiving() as receiver:
        delivery_id = tell(redis, receiver.url)
        deliver(redis, ["hooks.example.org"], is_in(redis, delivery_id, "exhausted"))
        assert receiver.received == []
    assert kept(redis, delivery_id).error == "the operator does not allow this host any more"


def test_a_slow_receiver_holds_up_no_other(redis: Redis) -> None:
    wait = threading.Event()

    def slow(number: int) -> tuple[int, dict[str, str]]:
        wait.wait(30)
        return 204, {}

    with receiving(slow) as stuck, receiving() as quick:
        for number in range(40):
            tell(redis, f"{stuck.url}/{number}", number)
        for number in range(40, 50):
            tell(redis, f"{quick.url}/{number}", number)

        def done() -> bool:
            if len(quick.received) == 10 and len(stuck.received) == MOST_EACH:
                wait.set()
            return all(each.state == "delivered" for each in listed(redis))

        try:
            deliver(redis, [stuck.url, quick.url], done)
        finally:
            wait.set()
        assert wait.is_set()
        assert len(stuck.received) == 40


def test_redis_that_is_away_for_a_while_costs_time_only(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, broken = Deliveries.claim, [True]

    def claim(self: Deliveries, *args: Any) -> list[DeliveryRecord]:
        if broken:
            broken.clear()
            raise ConnectionError("refused")
        return real(self, *args)

    monkeypatch.setattr(Deliveries, "claim", claim)
    with receiving() as receiver:
        delivery_id = tell(redis, receiver.url)
        deliver(redis, [receiver.url], is_in(redis, delivery_id, "delivered"))
    assert "webhooks wait until Redis answers" in caplog.text


def test_what_a_killed_gateway_had_begun_another_one_delivers(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    wait = threading.Event()

    def stuck_once(number: int) -> tuple[int, dict[str, str]]:
        if number == 1:
            wait.wait(60)
        return 204, {}

    def begin(receiver: Receiver) -> str:
        environ = {
            "PROXYGRAD_WEBHOOK_HOSTS": receiver.url,
            "PROXYGRAD_WEBHOOK_SECRET": SECRET,
            "PROXYGRAD_WEBHOOK_PRIVATE": "127.0.0.1/32",
        }
        delivery_id = tell(redis, receiver.url)
        with gateway(tmp_path, REDIS_URL=redis_url, **environ) as process:
            try:
                receiver.wait_for(1)
            finally:
                os.kill(process.pid, signal.SIGKILL)
        return delivery_id

    with receiving(stuck_once) as receiver:
        try:
            delivery_id = begin(receiver)
            assert kept(redis, delivery_id).state == "pending"
            for key in (due_deliveries_key(receiver.url), RECEIVERS_KEY):  # as if the lease had ended
                redis.zadd(key, dict.fromkeys(cast(list[bytes], redis.zrange(key, 0, -1)), 1))
            deliver(redis, [receiver.url], is_in(redis, delivery_id, "delivered"))
        finally:
            wait.set()
        assert [each.headers["webhook-id"] for each in receiver.received] == [delivery_id] * 2
    assert kept(redis, delivery_id).attempts == 2


def test_without_hosts_nothing_runs_in_the_background(app: Any) -> None:
    async def tasks() -> int:
        backend = app.state.backend
        async with delivering(
            backend.deliveries, backend.allowed_hosts, (), Signer(SECRET), now, backend.call
        ):
            return len(asyncio.all_tasks())

    assert asyncio.run(tasks()) == 1
