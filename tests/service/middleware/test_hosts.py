"""Names that the server answers to, and pages that may ask it."""

from __future__ import annotations

import pytest
import redis as redis_client
from fastapi import FastAPI

from service.app import create_app
from service.auth import key_ring
from service.settings import ServiceSettings
from tests.service.conftest import Http
from tests.service.middleware.test_authentication import QUESTION, made, refused


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST.", "127.9.9.9"])
def test_loopback_names_are_answered(served: Http, host: str) -> None:
    assert served.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost/x", "a@localhost", "["]
)
def test_a_name_that_points_here_by_a_trick_is_not(served: Http, host: str) -> None:
    detail = refused(served.get("/v1/models", headers={"Host": host}), 421, "unknown_host")
    assert "loopback" in detail
    assert served.get("/livez", headers={"Host": host}).status_code == 200


def test_allowed_hosts_are_answered_and_no_others(
    settings: ServiceSettings, redis: redis_client.Redis
) -> None:
    allowed = ("proxygrad.example.org", "*.internal")
    http = Http(create_app(settings.model_copy(update={"host": "0.0.0.0", "allowed_hosts": allowed})))
    for host in ("proxygrad.example.org:443", "a.b.internal"):
        refused(http.get("/v1/models", headers={"Host": host}), 401, "unauthorized")
    for host in ("localhost", "internal", "example.org", "xinternal"):
        assert "*.internal" in refused(http.get("/v1/models", headers={"Host": host}), 421, "unknown_host")


def test_pages_of_other_sites_may_not_ask(served: Http, redis: redis_client.Redis) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        detail = refused(served.ask(json=QUESTION, headers={"Origin": origin}), 403, "forbidden")
        assert "PROXYGRAD_CORS_ORIGINS" in detail
    own = served.ask(json=QUESTION, headers={"Origin": "http://localhost"})
    assert own.status_code == 202
    read = served.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in read.headers


def test_pages_of_named_origins_may(
    settings: ServiceSettings, redis: redis_client.Redis, served: Http
) -> None:
    page = {"Origin": "https://lab.example"}
    app: FastAPI = create_app(settings.model_copy(update={"cors_origins": ("https://lab.example",)}))
    http, header = Http(app), made(redis)
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    asked = http("OPTIONS", "/v1/visualizations", headers=page | wanted)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://lab.example")
    answer = http.ask(json=QUESTION, headers=page | header)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, "https://lab.example")
    assert "access-control-allow-credentials" not in answer.headers
    refusal = http.ask(json=QUESTION, headers=page)
    refused(refusal, 401, "unauthorized")
    assert refusal.headers["access-control-allow-origin"] == "https://lab.example"
