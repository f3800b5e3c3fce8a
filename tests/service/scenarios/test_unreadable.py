"""What another version wrote, or nobody can read, stops nothing else: it is named, and can be deleted."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_client

from proxygrad.spec import ModelInfo
from service.auth.keys import Keys
from service.backend import model_registry
from service.settings import ServiceSettings
from tests.service.api.test_visualizations import QUESTION, asked, problem_of
from tests.service.conftest import Http, Player
from tests.support.batch_player import BatchPlayer
from workers.broker import keys
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

#: What a newer worker may publish.
NEWER_KIND = {"name": "novel", "info": {"layers": [{"kind": "hypergraph"}]}}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_registry, "MAX_AGE_S", 0.0)
    catalog._told.drop("newer")


def announce(redis: redis_client.Redis, models: bytes, readiness: bytes = b"{}") -> None:
    redis.zadd(keys.WORKERS_KEY, {"newer": 1e12})
    redis.set(keys.models_key("newer"), models, ex=60)
    redis.set(keys.readiness_key("newer"), readiness, ex=60)


@pytest.mark.parametrize(
    ("models", "readiness"),
    [
        (json.dumps([NEWER_KIND]).encode(), b'{"novel": null}'),
        (b"[{", b"[{"),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"7", b"7"),
        (b"", b""),
        (b'[{"name": "digits"}]', b'{"digits": 3}'),
        (b'[{"name": "\\ud800"}]', b'{"\\ud800": null}'),
        (b"[" * 10_000, b'{"digits":' * 10_000),
    ],
    ids=["newer", "cut off", "no text", "a number", "empty", "another form", "half a character", "deep"],
)
def test_a_worker_that_announces_what_cannot_be_read_is_left_out(
    served: Http,
    redis: redis_client.Redis,
    caplog: pytest.LogCaptureFixture,
    models: bytes,
    readiness: bytes,
) -> None:
    announce(redis, models, readiness)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            names = [model["name"] for model in served.get("/v1/models").json()["models"]]
            assert names == ["broken", "digits"]
        ready = served.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["workers"] == 2
    assert ready.json()["warnings"] == ["worker newer publishes something that cannot be read here"]
    assert len([entry for entry in caplog.records if "worker newer" in entry.message]) == 1
    job_id = asked(served)
    assert served.get(f"/v1/visualizations/{job_id}").json()["blocked"] is None
    assert served.get("/metrics").status_code == 200
    catalog.withdraw(redis, "worker-1")
    assert served.get(f"/v1/visualizations/{job_id}").json()["blocked"]["code"] == "model_not_served"


def test_of_a_newer_worker_the_models_that_can_be_read_are_served(
    http: Http, redis: redis_client.Redis, info: ModelInfo
) -> None:
    readable = ServedModel(name="digits", info=info).model_dump(mode="json")
    announce(redis, json.dumps([NEWER_KIND, readable]).encode())
    assert [model["name"] for model in http.get("/v1/models").json()["models"]] == ["digits"]
    assert http.ask(json=QUESTION).status_code == 202


def newer(redis: redis_client.Redis, key: str) -> None:
    redis.hset(key, "spec", '{"model": "digits", "objective": {"kind": "novel"}}')


def damaged(redis: redis_client.Redis, key: str) -> None:
    redis.hset(key, "spec", b"\xff\x00")


def without_spec(redis: redis_client.Redis, key: str) -> None:
    redis.hdel(key, "spec")


def without_numbers(redis: redis_client.Redis, key: str) -> None:
    redis.hset(key, "created_at", "yesterday")


def beyond_all_dates(redis: redis_client.Redis, key: str) -> None:
    redis.hset(key, "created_at", "1e300")


def nested(redis: redis_client.Redis, key: str) -> None:
    redis.hset(key, "problem", "[" * 10_000)


RECORDS = [newer, damaged, without_spec, without_numbers, beyond_all_dates, nested]
Harm = Callable[[redis_client.Redis, str], None]


def listed(http: Http, path: str = "/v1/visualizations", **request: Any) -> tuple[list[str], list[str]]:
    page = http.get(path, **request)
    assert page.status_code == 200, page.text
    document = page.json()
    kind = path.rpartition("/")[2]
    return [each["id"] for each in document[kind]], document["unreadable"]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
@pytest.mark.parametrize("harm", RECORDS, ids=lambda harm: str(harm.__name__))
def test_a_record_that_cannot_be_read_is_listed_and_deleted(
    served: Http, redis: redis_client.Redis, player: Player, harm: Harm, state: str
) -> None:
    bad, good = asked(served, unit=1), asked(served, unit=2)
    if state != "queued":
        {"running": player.begin, "succeeded": player.succeed}[state](bad)
    harm(redis, keys.job_key(bad))
    path = f"/v1/visualizations/{bad}"
    assert listed(served) == ([good], [bad])
    for response in (served.get(path), served("POST", f"{path}/retry"), served.get(f"{path}/events")):
        assert bad in problem_of(response, 409, "unreadable_record")["detail"]
    deleted = served("DELETE", path)
    if state == "running":  # its run has to stop first
        problem_of(deleted, 409, "unreadable_record")
        assert redis.sismember(keys.FORGOTTEN_KEY, bad)
        return
    assert deleted.status_code == 204
    assert listed(served) == ([good], [])
    assert asked(served, unit=1) == bad
    assert listed(served) == ([bad, good], [])


def test_a_record_whose_kind_is_no_text_stops_no_list(served: Http, redis: redis_client.Redis) -> None:
    bad, good = asked(served, unit=1), asked(served, unit=2)
    redis.hset(keys.job_key(bad), "kind", b"\xff")
    assert listed(served) == ([good], [])  # as one of a kind that only a newer version knows


def test_a_record_of_another_type_is_listed_and_deleted(served: Http, redis: redis_client.Redis) -> None:
    bad, good = asked(served, unit=1), asked(served, unit=2)
    redis.delete(keys.job_key(bad))
    redis.rpush(keys.job_key(bad), "theirs")
    assert listed(served) == ([good], [bad])
    detail = problem_of(served.get(f"/v1/visualizations/{bad}"), 503, "redis_unavailable")["detail"]
    assert "WRONGTYPE" in detail


def test_whose_record_cannot_be_read_stays_a_secret(
    settings: ServiceSettings, redis: redis_client.Redis, served: Http
) -> None:
    owner, stranger = (
        {"Authorization": f"Bearer {Keys(redis).create(name, ['read', 'submit'])[1]}"} for name in "ab"
    )
    bad = served.ask(json=QUESTION, headers=owner).json()["id"]
    batch = served(
        "POST", "/v1/batches", json={"model": "digits", "layer": "layer3", "units": [3]}, headers=owner
    ).json()["id"]
    newer(redis, keys.job_key(bad))
    redis.hset(keys.batch_key(batch), "template", "{")
    for path, code in (
        (f"/v1/visualizations/{bad}", "unknown_visualization"),
        (f"/v1/batches/{batch}", "unknown_batch"),
    ):
        problem_of(served.get(path, headers=stranger), 404, code)
        problem_of(served("DELETE", path, headers=stranger), 404, code)
        problem_of(served.get(path, headers=owner), 409, "unreadable_record")
    assert listed(served, headers=owner) == ([], [bad])
    assert listed(served, headers=stranger) == ([], [])
    assert listed(served, "/v1/batches", headers=owner) == ([], [batch])
    assert listed(served, "/v1/batches", headers=stranger) == ([], [])
    assert served("DELETE", f"/v1/batches/{batch}", headers=owner).status_code == 204
    assert listed(served, "/v1/batches", headers=owner) == ([], [])


@pytest.mark.parametrize("harm", RECORDS, ids=lambda harm: str(harm.__name__))
def test_a_batch_goes_on_without_the_unit_whose_record_cannot_be_read(
    served: Http, redis: redis_client.Redis, worker: BatchPlayer, harm: Harm
) -> None:
    bad = asked(served, unit=3, layer="layer3")
    harm(redis, keys.job_key(bad))
    batch = served("POST", "/v1/batches", json={"model": "digits", "layer": "layer3", "units": [2, 3, 4]})
    batch_id = batch.json()["id"]
    worker.expand()
    worker.end(batch_id, "succeeded", 2, 4)
    document = served.get(f"/v1/batches/{batch_id}").json()
    assert (document["state"], document["counts"]["failed"]) == ("failed", 1)
    units = served.get(f"/v1/batches/{batch_id}/visualizations").json()["visualizations"]
    assert [unit["state"] for unit in units] == ["succeeded", "failed", "succeeded"]
    assert units[1]["problem"]["code"] == "unreadable_record"


@pytest.mark.parametrize(("field", "value"), [("template", "{"), ("created_at", "nan")])
def test_a_batch_that_cannot_be_read_holds_up_no_other(
    served: Http, redis: redis_client.Redis, worker: BatchPlayer, field: str, value: str
) -> None:
    bad, good = (
        served("POST", "/v1/batches", json={"model": "digits", "layer": "layer3", "units": [unit]}).json()[
            "id"
        ]
        for unit in (1, 2)
    )
    redis.hset(keys.batch_key(bad), field, value)
    worker.expand()
    worker.end(good, "succeeded")
    assert served.get(f"/v1/batches/{good}").json()["state"] == "succeeded"
    assert listed(served, "/v1/batches") == ([good], [bad])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE"),
        ("MISCONF Redis is configured to save RDB snapshots", "MISCONF"),
        ("NOAUTH Authentication required.", "uthentication required"),
        ("NOPERM User default has no permissions", "no permissions"),
        ("READONLY You can't write against a read only replica.", "read only replica"),
    ],
)
def test_the_problem_says_what_redis_said(
    served: Http, redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch, error: str, said: str
) -> None:
    def refuse(*_: object) -> None:
        reply: Any = redis_client.connection.DefaultParser
        raise reply.parse_error(error)

    monkeypatch.setattr(catalog, "read", refuse)
    detail = problem_of(served.get("/v1/models"), 503, "redis_unavailable")["detail"]
    assert said in detail
    assert "does not answer" not in detail
