"""What live workers serve, from several of them, with some gone."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from pydantic import ValidationError
from redis import Redis

from proxygrad.protocol.problems import Problem
from tests.support.eventually import until
from tests.support.model_on_paper import MODEL
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

READY = ServedModel(name="tiny", info=MODEL)
BROKEN = ServedModel(name="tiny", problem=Problem(code="model_unavailable", detail="truncated"))
OTHER = ServedModel(name="other", problem=Problem(code="model_unavailable", detail="gone"))


def test_nobody_serves_nothing(redis: Redis) -> None:
    assert catalog.served(redis) == {}
    assert catalog.live_workers(redis) == []


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_ready_model_wins_over_a_broken_one(redis: Redis, order: tuple[str, str]) -> None:
    for worker in order:
        catalog.publish(redis, worker, [READY] if worker == "a" else [BROKEN, OTHER])
    assert catalog.served(redis) == {"other": OTHER, "tiny": READY}
    assert catalog.live_workers(redis) == ["a", "b"]


def test_a_worker_without_models_lives(redis: Redis) -> None:
    catalog.publish(redis, "a", [])
    assert catalog.live_workers(redis) == ["a"]
    assert catalog.served(redis) == {}


def test_a_worker_that_withdraws_is_gone(redis: Redis) -> None:
    catalog.publish(redis, "a", [READY])
    catalog.withdraw(redis, "a")
    assert catalog.live_workers(redis) == []
    assert redis.keys("proxygrad:*") == []


def test_a_renewal_under_way_does_not_bring_back_a_worker_that_withdraws(redis: Redis) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def served() -> Sequence[ServedModel]:
        under_way.set()
        assert go_on.wait(10)
        return [READY]

    entry = catalog.CatalogEntry(redis, "a", served)
    renewal, withdrawal = threading.Thread(target=entry.publish), threading.Thread(target=entry.withdraw)
    renewal.start()
    assert under_way.wait(10)
    withdrawal.start()
    withdrawal.join(0.1)
    go_on.set()
    renewal.join(10)
    withdrawal.join(10)
    assert catalog.live_workers(redis) == []
    entry.publish()
    assert catalog.live_workers(redis) == []


def test_a_worker_that_stops_renewing_is_gone(redis: Redis) -> None:
    catalog.publish(redis, "a", [READY])
    assert catalog.live_workers(redis) == ["a"]
    catalog.publish(redis, "a", [READY], ttl_s=0.05)
    until(lambda: catalog.live_workers(redis) == [])
    assert catalog.served(redis) == {}


def test_a_model_is_ready_or_has_a_problem() -> None:
    with pytest.raises(ValidationError, match="either an info or a problem"):
        ServedModel(name="tiny")
    with pytest.raises(ValidationError, match="either an info or a problem"):
        ServedModel(name="tiny", info=MODEL, problem=BROKEN.problem)


def test_what_keeps_a_job_waiting_is_named(redis: Redis) -> None:
    def code(model: str) -> str | None:
        obstacle = catalog.obstacle(redis, model)
        return None if obstacle is None else obstacle.code

    assert code("tiny") == "no_worker"
    catalog.publish(redis, "a", [BROKEN])
    assert catalog.obstacle(redis, "tiny") == BROKEN.problem
    assert code("other") == "model_not_served"
    catalog.publish(redis, "b", [READY])
    assert code("tiny") is None
    catalog.withdraw(redis, "b")
    catalog.withdraw(redis, "a")
    assert code("tiny") == "no_worker"


def test_of_as_many_workers_the_newest_method_counts_however_it_is_numbered(redis: Redis) -> None:
    def model(version: str) -> ServedModel:
        return ServedModel(name="tiny", info=MODEL.model_copy(update={"engine_version": version}))

    versions = ["2-beta", "9", "10", "9" * 5000]
    for number in range(1, len(versions) + 1):
        catalog.publish(redis, f"worker {number}", [model(versions[number - 1])])
        assert catalog.served(redis)["tiny"] == model(versions[number - 1])
