"""Who is let in: keys in force, keys away, Redis away."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import redis as redis_client

from service.app import create_app
from service.auth import key_ring
from service.auth.keys import Keys
from service.auth.scopes import Scope
from service.settings import ServiceSettings
from service.stack.valkey import EmbeddedValkey
from tests.service.conftest import Http
from workers.broker.connection import connect

QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}
OPEN = ["/", "/livez", "/openapi.json", "/docs"]
CLOSED = [
    "/v1/models",
    "/v1/visualizations",
    f"/v1/visualizations/{'0' * 32}",
    "/v1/nothing",
    "/metrics",
]


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys made in a test count at once; how long they may be kept has tests of its own."""
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def made(redis: redis_client.Redis, *scopes: Scope) -> dict[str, str]:
    """The header of a new key."""
    return bearer(Keys(redis).create("test", scopes or ("read", "submit"))[1])


def refused(response: httpx.Response, status: int, code: str) -> str:
    """The detail of a refusal."""
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return str(response.json()["detail"])


def test_without_any_key_whoever_reaches_loopback_may_ask(served: Http) -> None:
    assert served.get("/v1/models").status_code == 200
    assert served.ask(json=QUESTION).status_code == 202


def test_from_the_first_key_on_everything_but_probes_and_documents_needs_one(
    served: Http, redis: redis_client.Redis
) -> None:
    header = made(redis)
    for path in CLOSED:
        response = served.get(path)
        refused(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == 'Bearer realm="proxygrad"'
    assert {served.get(path).status_code for path in OPEN} == {200}
    assert served.get("/v1/models", headers=header).status_code == 200
    assert served.ask(json=QUESTION, headers=header).status_code == 202


def test_an_unknown_id_and_a_wrong_secret_get_the_same_answer(
    served: Http, redis: redis_client.Redis
) -> None:
    _, token = Keys(redis).create("a")
    wrong = f"{token[:-8]}{'0' * 8}"
    answers = [
        served.get("/v1/models", headers=bearer(each)) for each in (wrong, f"pg_{'0' * 12}_{'0' * 64}", "x")
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {
        'Bearer realm="proxygrad", error="invalid_token"'
    }


@pytest.mark.parametrize("header", ["", "Basic eDp5", "Bearer", "pg_1_2", "Bearer  ", "Bearer a b"])
def test_what_is_no_bearer_key_is_refused(served: Http, redis: redis_client.Redis, header: str) -> None:
    made(redis)
    refused(served.get("/v1/models", headers={"Authorization": header}), 401, "unauthorized")


def test_the_scheme_may_be_written_in_any_case(served: Http, redis: redis_client.Redis) -> None:
    _, token = Keys(redis).create("a")
    assert served.get("/v1/models", headers={"Authorization": f"bearer {token}"}).status_code == 200


def test_revoked_and_expired_keys_open_nothing_and_say_so(served: Http, redis: redis_client.Redis) -> None:
    keys = Keys(redis)
    key, token = keys.create("a")
    keys.revoke(key.id)
    assert "is revoked" in refused(served.get("/v1/models", headers=bearer(token)), 401, "unauthorized")
    _, late = keys.create("b", expires_days=1e-12)  # less than a float of seconds since 1970 can add
    assert "is expired" in refused(served.get("/v1/models", headers=bearer(late)), 401, "unauthorized")
    refused(served.get("/v1/models"), 401, "unauthorized")


@pytest.mark.parametrize(
    ("scopes", "may_read", "may_submit"),
    [
        (("read",), True, False),
        (("submit",), False, True),
        (("read_all",), True, False),
        (("admin",), True, True),
        (("read", "submit"), True, True),
    ],
)
def test_a_missing_scope_is_named(
    served: Http, redis: redis_client.Redis, scopes: tuple[Scope, ...], may_read: bool, may_submit: bool
) -> None:
    header = made(redis, *scopes)
    answers = {
        "read": served.get("/v1/models", headers=header),
        "submit": served.ask(json=QUESTION, headers=header),
    }
    for needed, may in (("read", may_read), ("submit", may_submit)):
        answer = answers[needed]
        assert answer.is_success == may
        if not may:
            assert f"the scope '{needed}'" in refused(answer, 403, "forbidden")
            assert f'scope="{needed}"' in answer.headers["www-authenticate"]


def test_where_others_reach_it_a_key_is_needed_even_when_there_is_none(
    settings: ServiceSettings, redis: redis_client.Redis
) -> None:
    http = Http(create_app(settings.model_copy(update={"host": "0.0.0.0"})))
    assert "proxygrad keys create" in refused(http.get("/v1/models"), 401, "unauthorized")
    assert http.get("/livez").status_code == 200
    refused(http.get("/v1/models", headers=made(redis)), 503, "no_worker")


def test_a_flushed_redis_opens_nothing(served: Http, redis: redis_client.Redis) -> None:
    header = made(redis)
    refused(served.get("/v1/models"), 401, "unauthorized")
    redis.flushall()
    refused(served.get("/v1/models"), 401, "unauthorized")
    refused(served.get("/v1/models", headers=header), 401, "unauthorized")


def test_without_redis_nobody_is_let_in(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        settings = ServiceSettings.from_env({"REDIS_URL": valkey.url, "PROXYGRAD_HOME": str(tmp_path)})
        http = Http(create_app(settings))
        with connect(valkey.url) as redis:
            header = made(redis)
        refused(http.get("/v1/models"), 401, "unauthorized")
    for headers in ({}, header):
        refused(http.get("/v1/models", headers=headers), 503, "redis_unavailable")
        refused(
            http.get(f"/v1/visualizations/{'0' * 32}/images/0", headers=headers), 503, "redis_unavailable"
        )
    assert http.get("/livez").status_code == 200


def test_too_many_requests_are_told_when_to_come_back(served: Http, redis: redis_client.Redis) -> None:
    header = bearer(Keys(redis).create("slow", rate_per_min=2)[1])
    first = served.get("/v1/models", headers=header)
    assert (first.status_code, first.headers["ratelimit"][:15]) == (200, '"requests";r=1;')
    assert first.headers["ratelimit-policy"] == '"requests";q=2;w=60'
    assert served.get("/v1/models", headers=header).status_code == 200
    third = served.get("/v1/models", headers=header)
    assert "2 requests a minute" in refused(third, 429, "rate_limited")
    assert 25 <= int(third.headers["retry-after"]) <= 30
    assert third.headers["ratelimit"].startswith('"requests";r=0;')
    assert served.get("/v1/models", headers=made(redis)).status_code == 200, "another key has its own rate"


def test_a_wrong_key_takes_nothing_of_the_rate_of_the_right_one(
    served: Http, redis: redis_client.Redis
) -> None:
    _, token = Keys(redis).create("slow", rate_per_min=1)
    for _ in range(3):
        refused(served.get("/v1/models", headers=bearer(f"{token[:-8]}{'0' * 8}")), 401, "unauthorized")
    assert served.get("/v1/models", headers=bearer(token)).status_code == 200


def test_a_key_has_so_many_jobs_in_flight(served: Http, redis: redis_client.Redis) -> None:
    header = bearer(Keys(redis).create("few", in_flight=2)[1])
    for unit in (1, 2, 1):
        assert served.ask(json=QUESTION | {"unit": unit}, headers=header).status_code == 202
    third = served.ask(json=QUESTION | {"unit": 3}, headers=header)
    assert "2 jobs of this caller wait or run" in refused(third, 429, "too_many_in_flight")
    assert third.headers["retry-after"]
    assert served.ask(json=QUESTION | {"unit": 3}, headers=made(redis)).status_code == 202
    assert served.ask(json=QUESTION | {"unit": 3}, headers=header).status_code == 202, "joined, no new job"
