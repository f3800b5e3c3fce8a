"""Alive is not ready, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

from service.app import create_app
from service.settings import Settings
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
    http = Http(create_app(Settings.from_env(environ)))
    response = http.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "redis_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    assert http.get("/livez").json() == {"status": "alive"}
