"""Another kind of job, registered by one module on each side, goes the whole way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import redis as redis_client
from fastapi import FastAPI

pytest.importorskip("torch", reason="a worker computes with torch")

from proxygrad.models import Catalog
from proxygrad.networks.network import Network
from service.app import mount_flat
from service.settings import ServiceSettings
from service.webhooks.events import payload
from tests.service.conftest import Http
from tests.support import statistics_computation, statistics_kind
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import until
from tests.support.statistics_kind import FILE, PATH, STATISTICS, StatisticsJob, StatisticsSpec
from tests.support.worker_in_process import working
from workers.broker import keys, rq_names
from workers.execution.context import WorkerContext
from workers.execution.kinds.registry import COMPUTATIONS
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.kinds.registry import KINDS, capabilities
from workers.jobs.repository import Jobs
from workers.queue.fair_queue import FairQueue
from workers.storage.store import Store

pytestmark = pytest.mark.engine

LAYER = "layer3"
BODY = {"model": "digits", "layer": LAYER, "level": 0.25}
#: Long enough to be met while it runs.
LONG = {**BODY, "steps": 500}


@pytest.fixture(scope="module")
def network() -> Network:
    return Catalog.from_file().load("digits")


class Lending:
    """Serves one network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @property
    def served(self) -> tuple[ServedModel, ...]:
        return (ServedModel(name="digits", info=self._network.info),)

    @contextmanager
    def lent(self, name: str) -> Iterator[Network]:
        yield self._network


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The kind is registered on both sides."""
    monkeypatch.setitem(cast(dict[str, Any], KINDS), STATISTICS.name, STATISTICS)
    monkeypatch.setitem(cast(dict[str, Any], COMPUTATIONS), STATISTICS.name, statistics_computation.compute)
    return monkeypatch


@pytest.fixture
def http(app: FastAPI, redis: redis_client.Redis, network: Network, registered: object) -> Http:
    """A gateway with the routes of the kind, and a live worker that offers it."""
    mount_flat(app, [statistics_kind.router])
    catalog.publish(redis, "host", Lending(network).served, 60, capabilities)
    return Http(app)


@pytest.fixture
def kept(settings: ServiceSettings) -> Store:
    return Store.from_url(settings.store_url)


@contextmanager
def at_work(redis: redis_client.Redis, store: Store, network: Network) -> Iterator[WorkerContext]:
    with working(redis, store, CountingEngine(), models=Lending(network)) as context:
        yield context


def asked(http: Http, **body: Any) -> dict[str, Any]:
    response = http("POST", PATH, json=body)
    assert response.status_code == 202, response.text
    return cast(dict[str, Any], response.json())


def test_both_sides_have_the_same_kinds() -> None:
    assert KINDS.keys() == COMPUTATIONS.keys()


def test_from_request_to_result_and_after_redis_forgot_it(
    http: Http, redis: redis_client.Redis, kept: Store, network: Network
) -> None:
    job_id = asked(http, **BODY)["id"]
    assert job_id == StatisticsSpec(**BODY).identity(network.info)  # type: ignore[arg-type]
    assert redis.hget(keys.job_key(job_id), "kind") == b"statistics"
    expected = statistics_computation.measure(network.module, LAYER, network.info.input_shape, 0.25)
    with at_work(redis, kept, network):
        done = http.get(f"{PATH}/{job_id}?wait=30").json()
    assert done == {"id": job_id, "state": "succeeded", "mean": expected, "blocked": None}
    assert json.loads(kept.get(f"{job_id}/{FILE}") or b"") == {"mean": expected}
    record = json.loads(kept.get(f"{job_id}/result.json") or b"")
    assert (record["kind"], record["result"]) == ("statistics", {"mean": expected})
    events = http.get(f"{PATH}/{job_id}/events").text
    assert 'event: state\ndata: {"state":"succeeded","problem":null}' in events
    redis.delete(keys.job_key(job_id), rq_names.entry_key(job_id))
    assert http.get(f"{PATH}/{job_id}").json() == done
    again = http("POST", PATH, json=BODY)
    assert (again.status_code, again.json()) == (200, done)
    stored = Jobs(redis, kept).stored(job_id)
    assert isinstance(stored, StatisticsJob)
    assert Jobs(redis, kept).artifact(STATISTICS, job_id, FILE) == kept.get(f"{job_id}/{FILE}")


def test_a_result_with_its_artifact_gone_is_computed_again(
    http: Http, redis: redis_client.Redis, kept: Store, network: Network
) -> None:
    job_id = asked(http, **BODY)["id"]
    with at_work(redis, kept, network):
        done = http.get(f"{PATH}/{job_id}?wait=30").json()
        kept.delete(f"{job_id}/{FILE}")
        assert asked(http, **BODY)["id"] == job_id
        assert http.get(f"{PATH}/{job_id}?wait=30").json() == done
    assert kept.exists(f"{job_id}/{FILE}")


def test_its_end_is_an_event_of_its_kind(
    settings: ServiceSettings,
    http: Http,
    redis: redis_client.Redis,
    kept: Store,
    network: Network,
    app: FastAPI,
) -> None:
    app.state.backend.allowed_hosts = type(app.state.backend.allowed_hosts)(["hooks.example.org"])
    hooked = {**BODY, "webhook": "https://hooks.example.org/a"}
    job_id = asked(http, **hooked)["id"]
    with at_work(redis, kept, network):
        mean = http.get(f"{PATH}/{job_id}?wait=30").json()["mean"]
    http("POST", PATH, json={**BODY, "webhook": "https://hooks.example.org/b"})  # answered from the record
    listed = http.get("/v1/webhooks/deliveries").json()["deliveries"]
    assert [(each["type"], each["links"]["subject"]) for each in listed] == [
        ("statistics.succeeded", f"{PATH}/{job_id}")
    ] * 2
    delivery = app.state.backend.deliveries.fetch(listed[0]["id"])
    assert json.loads(payload(delivery))["data"] == {
        "id": job_id,
        "state": "succeeded",
        "mean": mean,
        "problem": None,
        "links": {"self": f"{PATH}/{job_id}"},
    }


def test_it_is_canceled_retried_and_deleted(
    http: Http, redis: redis_client.Redis, kept: Store, network: Network
) -> None:
    job_id = asked(http, **LONG)["id"]
    path = f"{PATH}/{job_id}"

    def state() -> str:
        return cast(str, http.get(path).json()["state"])

    with at_work(redis, kept, network):
        until(lambda: state() == "running")
        assert http("POST", f"{path}/cancel").status_code in (200, 202)
        until(lambda: state() == "canceled")
        assert http("POST", f"{path}/retry").status_code == 202
        until(lambda: state() == "running")
        assert http("DELETE", path).status_code == 202
        until(lambda: state() == "canceled")
    assert http("DELETE", path).status_code == 204
    assert http.get(path).status_code == 404
    assert not redis.exists(keys.job_key(job_id))


def test_each_resource_shows_its_own_kind(http: Http, redis: redis_client.Redis) -> None:
    theirs = asked(http, **BODY)["id"]
    ours = http.ask(json={"model": "digits", "layer": LAYER, "unit": 1}).json()["id"]
    listed = http.get("/v1/visualizations").json()["visualizations"]
    assert [each["id"] for each in listed] == [ours]
    for method, path in (
        ("GET", f"/v1/visualizations/{theirs}"),
        ("GET", f"/v1/visualizations/{theirs}/images/0"),
        ("GET", f"/v1/visualizations/{theirs}/events"),
        ("POST", f"/v1/visualizations/{theirs}/cancel"),
        ("POST", f"/v1/visualizations/{theirs}/retry"),
        ("DELETE", f"/v1/visualizations/{theirs}"),
    ):
        response = http(method, path)
        assert (response.status_code, response.json()["code"]) == (404, "unknown_visualization"), path
    assert http.get(f"{PATH}/{ours}").json()["code"] == "not_found"
    assert redis.hget(keys.job_key(theirs), "state") == b"queued"


def test_a_version_without_the_kind_leaves_it_to_others(
    http: Http,
    redis: redis_client.Redis,
    kept: Store,
    network: Network,
    registered: pytest.MonkeyPatch,
) -> None:
    """It is neither taken nor failed, holds up nothing, and is listed nowhere; a newer worker runs it."""
    theirs = asked(http, **BODY)["id"]
    ours = http.ask(json={"model": "digits", "layer": LAYER, "unit": 1}).json()["id"]
    with registered.context() as older:
        older.delitem(cast(dict[str, Any], KINDS), STATISTICS.name)
        older.delitem(cast(dict[str, Any], COMPUTATIONS), STATISTICS.name)
        assert FairQueue(redis).pop(list(capabilities("digits")), 10) == [ours]
        assert [each["id"] for each in http.get("/v1/visualizations").json()["visualizations"]] == [ours]
        assert http.get(f"/v1/visualizations/{theirs}").status_code == 404
        assert http("DELETE", f"/v1/visualizations/{theirs}").status_code == 404
    with at_work(redis, kept, network):
        assert http.get(f"{PATH}/{theirs}?wait=30").json()["state"] == "succeeded"


def test_a_kind_that_no_live_worker_has_is_blocked(
    http: Http, redis: redis_client.Redis, network: Network
) -> None:
    job_id = asked(http, **BODY)["id"]
    assert http.get(f"{PATH}/{job_id}").json()["blocked"] is None
    catalog.publish(redis, "host", Lending(network).served, 60)  # a version without it
    assert http.get(f"{PATH}/{job_id}").json()["blocked"]["code"] == "model_not_served"


def test_a_run_of_an_unknown_kind_is_given_back(
    http: Http, redis: redis_client.Redis, kept: Store, network: Network
) -> None:
    """However it came to be popped."""
    job_id = http.ask(json={"model": "digits", "layer": LAYER, "unit": 1}).json()["id"]
    redis.hset(keys.job_key(job_id), "kind", "novel")
    runs: set[bytes] = set()

    def tried() -> bool:
        execution = cast("bytes | None", redis.hget(keys.job_key(job_id), "execution"))
        runs.update({execution} if execution else ())
        return len(runs) > 0

    with at_work(redis, kept, network):
        until(tried)
    state, losses = redis.hmget(keys.job_key(job_id), "state", "losses")
    assert (state, losses) == (b"queued", b"0")
