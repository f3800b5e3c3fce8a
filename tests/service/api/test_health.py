"""Alive is not ready, and what is missing is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis as redis_client
from fastapi import FastAPI

from service.app import create_app
from service.settings import ServiceSettings
from service.stack.valkey import EmbeddedValkey
from tests.service.backend.test_backend import lone_app, lone_valkey  # noqa: F401 - fixtures
from tests.service.conftest import Http
from tests.support.scrape import scrape, value
from workers.broker.connection import connect
from workers.broker.safety import unsafe_settings


def test_ready_when_redis_answers_and_a_worker_lives(served: Http) -> None:
    response = served.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "workers": 1, "warnings": []})


def test_a_missing_worker_is_named(http: Http) -> None:
    response = http.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "no_worker")
    assert http.get("/livez").status_code == 200


def test_a_missing_redis_is_named_and_does_not_touch_liveness(tmp_path: Path) -> None:
    environ = {"REDIS_URL": f"unix://{tmp_path}/none.sock", "PROXYGRAD_HOME": str(tmp_path)}
    http = Http(create_app(ServiceSettings.from_env(environ)))
    response = http.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "redis_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    assert http.get("/livez").json() == {"status": "alive"}
    assert http.get("/startupz").json()["code"] == "redis_unavailable"


def test_it_has_started_with_the_first_answer_of_redis_whatever_comes_then(
    lone_app: FastAPI,  # noqa: F811
    lone_valkey: EmbeddedValkey,  # noqa: F811
) -> None:
    http = Http(lone_app)
    assert http.get("/startupz").json() == {"status": "started"}
    lone_valkey.close()
    assert http.get("/startupz").status_code == 200
    assert http.get("/readyz").status_code == 503


def test_probes_may_have_parameters(served: Http) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        assert served.get(f"{path}?verbose=1").status_code == 200


@pytest.mark.parametrize(
    ("setting", "unsafe", "safe"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("maxmemory-policy", "volatile-ttl", "noeviction")],
)
def test_a_setting_of_redis_that_loses_jobs_is_named(
    served: Http,
    app: FastAPI,
    redis: redis_client.Redis,
    caplog: pytest.LogCaptureFixture,
    setting: str,
    unsafe: str,
    safe: str,
) -> None:
    def gauge() -> float:
        return value(scrape(served), "proxygrad_redis_unsafe_setting", setting=setting)

    assert served.get("/readyz").json()["warnings"] == []
    assert gauge() == 0
    redis.config_set(setting, unsafe)
    try:
        (warning,) = served.get("/readyz").json()["warnings"]
        assert gauge() == 1
        asyncio.run(app.state.backend.start())
    finally:
        redis.config_set(setting, safe)
    assert f"{setting} is {unsafe}" in warning
    assert "set it to noeviction" in warning
    assert warning in caplog.messages


def test_a_redis_that_forgets_at_a_restart_is_named(lone_app: FastAPI, lone_valkey: EmbeddedValkey) -> None:  # noqa: F811
    with connect(lone_valkey.url) as redis:
        assert unsafe_settings(redis) == {}
        redis.config_set("appendonly", "no")
        assert list(unsafe_settings(redis)) == ["appendonly"]
        redis.execute_command("ACL SETUSER default -info")
        assert unsafe_settings(redis) == {}
