"""`/metrics`: what is measured, who may read it, and what it says without Redis."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
import redis as redis_client
from fastapi import FastAPI

from proxygrad.spec import ModelInfo
from proxygrad.version import ENGINE_VERSION, __version__
from service.app import create_app
from service.auth import key_ring
from service.auth.keys import Keys
from service.settings import ServiceSettings
from service.stack.valkey import EmbeddedValkey
from tests.service.conftest import Http
from tests.service.middleware.test_authentication import QUESTION, bearer, made, refused
from tests.support.eventually import until
from tests.support.http_server import serving
from tests.support.scrape import Labels, requests, samples, scrape, value
from workers.broker.connection import connect
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

ONE = "/v1/visualizations/{visualization_id}"


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)


# -- requests ------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_method_route_and_status(served: Http) -> None:
    job_id = served.ask(json=QUESTION).json()["id"]
    for each in (job_id, job_id, "0" * 32):
        served.get(f"/v1/visualizations/{each}")
    served("HEAD", f"/v1/visualizations/{job_id}/images/0")
    served("DELETE", f"/v1/visualizations/{job_id}")
    assert requests(scrape(served)) == {
        ("POST", "/v1/visualizations", "202", 1),
        ("GET", ONE, "200", 2),
        ("GET", ONE, "404", 1),
        ("HEAD", f"{ONE}/images/{{number}}", "404", 1),
        ("DELETE", ONE, "204", 1),
    }


def test_callers_make_no_labels(served: Http) -> None:
    for number in range(30):
        served(f"M{number}", "/v1/models")
        served("PATCH", "/v1/models")
        served.get(f"/{number}/%00%0a%22{{le}}\\")
        served.get(f"/v1/models/{number}")
        served.get("/v1/models", headers={"Host": f"{number}.example"})
    assert requests(scrape(served)) == {
        ("other", "/v1/models", "405", 60),
        ("GET", "none", "404", 30),
        ("GET", "/v1/models/{model}", "404", 30),
        ("GET", "none", "421", 30),
    }


def test_a_failure_of_the_server_is_counted_as_what_it_is_answered_with(app: FastAPI) -> None:
    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError

    http = Http(app)
    assert http.get("/fails").status_code == 500
    assert requests(scrape(http)) == {("GET", "/fails", "500", 1)}


def test_a_scrape_counts_itself_when_it_is_answered(http: Http) -> None:
    assert value(scrape(http), "proxygrad_http_requests_in_progress") == 1
    found = scrape(http)
    assert requests(found) == {("GET", "/metrics", "200", 1)}
    assert value(found, "proxygrad_http_requests_in_progress") == 1


def test_two_applications_of_one_process_have_nothing_in_common(
    app: FastAPI, settings: ServiceSettings
) -> None:
    first, other = Http(app), Http(create_app(settings))
    first.get("/livez")
    assert requests(scrape(first)) == {("GET", "/livez", "200", 1)}
    assert requests(scrape(other)) == set()


def test_a_stream_is_counted_by_its_start_and_its_follower_as_long_as_it_follows(
    served: Http, app: FastAPI
) -> None:
    path = served.ask(json=QUESTION).json()["links"]["self"]
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        with client.stream("GET", f"{path}/events") as stream:
            lines = stream.iter_lines()  # closes the stream when it goes
            next(lines)
            found = samples(client.get("/metrics").text)
            assert ("GET", f"{ONE}/events", "200", 1) in requests(found)
            assert value(found, "proxygrad_followers") == 1
            assert value(found, "proxygrad_http_requests_in_progress") == 2

        def over() -> bool:
            found = samples(client.get("/metrics").text)
            open_now = value(found, "proxygrad_http_requests_in_progress")
            return (value(found, "proxygrad_followers"), open_now) == (0, 1)

        until(over)


# -- the fleet -----------------------------------------------------------------------------------------------


def test_what_is_asked_and_ends_moves_the_counts(served: Http) -> None:
    found = scrape(served)
    assert (
        value(found, "proxygrad_jobs_waiting", priority="interactive", kind="visualization", model="digits")
        == 0
    )
    job_id = served.ask(json=QUESTION).json()["id"]
    served("POST", "/v1/batches", json={"model": "digits", "layer": "layer3", "units": [1, 2]})
    found = scrape(served)
    assert (
        value(found, "proxygrad_jobs_waiting", priority="interactive", kind="visualization", model="digits")
        == 1
    )
    assert value(found, "proxygrad_jobs_waiting", priority="batch", kind="visualization", model="digits") == 0
    assert value(found, "proxygrad_jobs_ended_total", kind="visualization", state="canceled") == 0
    assert value(found, "proxygrad_oldest_waiting_job_seconds") > 0
    assert value(found, "proxygrad_batches_running") == 1
    served("POST", f"/v1/visualizations/{job_id}/cancel")
    found = scrape(served)
    assert (
        value(found, "proxygrad_jobs_waiting", priority="interactive", kind="visualization", model="digits")
        == 0
    )
    assert value(found, "proxygrad_jobs_ended_total", kind="visualization", state="canceled") == 1
    assert value(found, "proxygrad_oldest_waiting_job_seconds") == 0


def test_workers_and_their_models_are_told(served: Http) -> None:
    found = scrape(served)
    assert value(found, "proxygrad_workers") == 1
    assert value(found, "proxygrad_model_ready", model="digits") == 1
    assert value(found, "proxygrad_model_ready", model="broken") == 0
    assert value(found, "proxygrad_build_info", version=__version__, engine_version=ENGINE_VERSION) == 1


# -- Redis away ----------------------------------------------------------------------------------------------


@pytest.fixture
def lone(tmp_path: Path, info: ModelInfo) -> Iterator[tuple[EmbeddedValkey, FastAPI]]:
    """A server that a test may stop, and a gateway on it."""
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        with connect(valkey.url) as redis:
            catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=600)
        app = create_app(ServiceSettings.from_env({"REDIS_URL": valkey.url, "PROXYGRAD_HOME": str(tmp_path)}))
        yield valkey, app
        app.state.backend.redis.close()


def check_away(found: Mapping[str, Mapping[Labels, float]]) -> None:
    assert value(found, "proxygrad_redis_up") == 0
    assert not {"proxygrad_jobs_waiting", "proxygrad_workers", "proxygrad_jobs_ended_total"} & found.keys()
    assert "proxygrad_http_requests_in_progress" in found


def test_without_redis_the_process_still_tells_of_itself(lone: tuple[EmbeddedValkey, FastAPI]) -> None:
    valkey, app = lone
    http = Http(app)
    assert value(scrape(http), "proxygrad_redis_up") == 1
    valkey.close()
    check_away(scrape(http))
    with valkey:
        found = scrape(http)
        assert value(found, "proxygrad_redis_up") == 1
        assert "proxygrad_jobs_ended_total" in found


def test_a_redis_that_says_nothing_costs_a_scrape_one_timeout(lone: tuple[EmbeddedValkey, FastAPI]) -> None:
    valkey, app = lone
    http = Http(app)
    with connect(valkey.url) as redis:
        header = made(redis, "read")
        pid = int(redis.info("server")["process_id"])
    scrape(http, headers=header)
    os.kill(pid, signal.SIGSTOP)
    try:
        before_s = time.monotonic()
        check_away(scrape(http, headers=header))
        assert time.monotonic() - before_s < 10  # when Prometheus gives up
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_keys_that_were_seen_last_open_the_metrics_then_and_nothing_else(
    lone: tuple[EmbeddedValkey, FastAPI],
) -> None:
    valkey, app = lone
    http = Http(app)
    with connect(valkey.url) as redis:
        reader = made(redis, "read")
        limited = bearer(Keys(redis).create("prometheus", ("read",), rate_per_min=60)[1])
        submitter = made(redis, "submit")
    scrape(http, headers=reader)
    valkey.close()
    check_away(scrape(http, headers=reader))
    check_away(scrape(http, headers=limited))
    refused(http.get("/metrics"), 401, "unauthorized")
    refused(http.get("/metrics", headers=bearer("pg_1_2")), 401, "unauthorized")
    refused(http.get("/metrics", headers=submitter), 403, "forbidden")
    refused(http.get("/v1/models", headers=reader), 503, "redis_unavailable")


def test_who_has_never_seen_the_keys_lets_nobody_in(tmp_path: Path) -> None:
    environ = {"REDIS_URL": f"unix://{tmp_path}/none.sock", "PROXYGRAD_HOME": str(tmp_path)}
    http = Http(create_app(ServiceSettings.from_env(environ)))
    refused(http.get("/metrics"), 503, "redis_unavailable")


# -- who may read it -----------------------------------------------------------------------------------------


def test_where_keys_are_in_force_it_takes_one_that_may_read(served: Http, redis: redis_client.Redis) -> None:
    header = made(redis, "read")
    refused(served.get("/metrics"), 401, "unauthorized")
    refused(served.get("/metrics", headers=made(redis, "submit")), 403, "forbidden")
    assert ("GET", "none", "401", 1) in requests(scrape(served, headers=header))


def test_names_do_not_matter_where_a_key_is_needed_and_do_elsewhere(
    served: Http, settings: ServiceSettings, redis: redis_client.Redis
) -> None:
    pod = {"Host": "10.1.2.3:8000"}
    refused(served.get("/metrics", headers=pod), 421, "unknown_host")
    named = settings.model_copy(update={"host": "0.0.0.0", "allowed_hosts": ("proxygrad.example.org",)})
    http = Http(create_app(named))
    refused(http.get("/metrics", headers=pod), 401, "unauthorized")
    scrape(http, headers=pod | made(redis, "read"))
    refused(http.get("/v1/models", headers=pod), 421, "unknown_host")
