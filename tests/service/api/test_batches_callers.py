"""Batches of several callers: each sees its own, and cancels for itself alone."""

from __future__ import annotations

import redis as redis_client

from tests.service.api.test_batches import asked
from tests.service.auth.test_callers import As, a  # noqa: F401 - a fixture
from tests.service.conftest import Http
from tests.support.batch_player import BatchPlayer


def test_a_batch_is_there_for_its_caller_alone(
    a: As,  # noqa: F811
    served: Http,
    redis: redis_client.Redis,
    worker: BatchPlayer,
) -> None:
    b, reader, admin = As(served, redis), As(served, redis, "read_all"), As(served, redis, "admin")
    batch = asked(a, units=[1, 2])
    worker.expand()
    links = batch["links"]
    assert asked(b, units=[1, 2])["id"] != batch["id"]
    for path in (links["self"], links["visualizations"], links["atlas"]):
        assert b.get(path).json()["code"] == "unknown_batch"
        assert a.get(path).is_success
        assert reader.get(path).is_success
    assert b("POST", links["cancel"]).json()["code"] == "unknown_batch"
    assert b("DELETE", links["self"]).json()["code"] == "unknown_batch"
    assert batch["id"] not in {each["id"] for each in b.get("/v1/batches").json()["batches"]}
    assert batch["id"] in {each["id"] for each in reader.get("/v1/batches").json()["batches"]}
    unit = a.get(links["visualizations"]).json()["visualizations"][0]
    assert a.get(unit["links"]["visualization"]).is_success
    writer = As(served, redis, "read_all", "submit")
    assert writer("POST", links["cancel"]).json()["code"] == "forbidden"
    assert admin("POST", links["cancel"]).json()["state"] == "canceled"


def test_what_others_want_goes_on_when_a_batch_is_canceled(
    a: As,  # noqa: F811
    served: Http,
    redis: redis_client.Redis,
    worker: BatchPlayer,
) -> None:
    b = As(served, redis)
    batch = asked(a, units=[1, 2])
    worker.expand()
    units = a.get(batch["links"]["visualizations"]).json()["visualizations"]
    spec = a.get(units[0]["links"]["visualization"]).json()["spec"]
    shared = b.ask(unit=spec["unit"], priority="batch")
    assert shared == units[0]["links"]["visualization"]
    assert a("POST", batch["links"]["cancel"]).json()["state"] == "canceled"
    assert (a.state(shared), b.state(shared)) == ("canceled", "queued")
    assert a.state(units[1]["links"]["visualization"]) == "canceled"
