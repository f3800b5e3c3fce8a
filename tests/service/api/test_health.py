"""Alive is not ready, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from service.app import create_app
from service.settings import ServiceSettings
from service.stack.valkey import EmbeddedValkey
from tests.service.backend.test_backend import lone_app, lone_valkey  # noqa: F401 - fixtures
from tests.service.conftest import Http


def test_ready_when_redis_answers_and_a_worker_lives(served: Http) -> None:
    response = served.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "workers": 1})


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
