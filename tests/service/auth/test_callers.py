"""Several callers and one job: each sees what it asked for, nobody learns of the others."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import redis as redis_client

from proxygrad.spec import ModelInfo
from service.auth import key_ring
from service.auth.callers import Caller
from service.auth.keys import Keys
from service.auth.scopes import Scope
from tests.service.conftest import Http, Player
from workers.broker.rq_names import QUEUE_KEY

QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}


class As:
    """Requests with one key."""

    def __init__(self, http: Http, redis: redis_client.Redis, *scopes: Scope) -> None:
        key, token = Keys(redis).create("test", scopes or ("read", "submit"))
        self.id = key.id
        self._http = http
        self._header = {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = self._header | request.pop("headers", {})
        return self._http(method, path, headers=headers, **request)

    def get(self, path: str, **request: Any) -> httpx.Response:
        return self("GET", path, **request)

    def ask(self, **changes: Any) -> str:
        response = self("POST", "/v1/visualizations", json=QUESTION | changes)
        assert response.is_success, response.text
        return f"/v1/visualizations/{response.json()['id']}"

    def state(self, path: str) -> str:
        return str(self.get(path).json()["state"])


@pytest.fixture
def a(served: Http, redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch) -> As:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)
    return As(served, redis)


@pytest.fixture
def b(a: As, served: Http, redis: redis_client.Redis) -> As:
    return As(served, redis)


def unlike_unknown(caller: As, method: str, path: str, **request: Any) -> None:
    """Fails unless the answer is, but for the id, the one about an id that nobody has."""
    own, unknown = (
        caller(method, path, **request),
        caller(method, path.replace(path[19:51], "0" * 32), **request),
    )
    assert own.status_code == unknown.status_code == 404, own.text
    assert own.text.replace(path[19:51], "0" * 32) == unknown.text


def job_id(path: str) -> str:
    return path.rpartition("/")[2]


def test_what_another_asked_for_is_not_there(a: As, b: As, player: Player) -> None:
    path = a.ask()
    for state in ("queued", "succeeded"):
        if state == "succeeded":
            player.succeed(job_id(path))
        assert a.state(path) == state
        unlike_unknown(b, "GET", path)
        unlike_unknown(b, "GET", f"{path}?wait=1")
        unlike_unknown(b, "GET", f"{path}/images/0")
        unlike_unknown(b, "POST", f"{path}/cancel")
        unlike_unknown(b, "POST", f"{path}/retry")
        unlike_unknown(b, "DELETE", path)
    assert a.state(path) == "succeeded", "nothing of that changed anything"


def test_who_asks_the_same_question_shares_the_job_and_the_answer(
    a: As, b: As, player: Player, redis: redis_client.Redis
) -> None:
    path = a.ask()
    assert b.ask() == path
    assert redis.llen(QUEUE_KEY) == 1
    assert b.state(path) == "queued"
    player.succeed(job_id(path))
    late = As(a._http, redis)
    assert late("POST", "/v1/visualizations", json=QUESTION).status_code == 200, "answered at once"
    assert late.get(f"{path}/images/0").headers["cache-control"].startswith("private, ")


def test_an_answer_says_nothing_of_who_asked(a: As, b: As) -> None:
    path = a.ask()
    b.ask()
    assert a.id not in b.get(path).text
    assert b.id not in a.get(path).text


def test_an_old_answer_is_had_by_asking_again(a: As, player: Player, redis: redis_client.Redis) -> None:
    path = a.ask()
    player.succeed(job_id(path))
    player.forget(job_id(path))
    redis.delete(f"proxygrad:requesters:{job_id(path)}")
    unlike_unknown(a, "GET", path)
    assert a.ask() == path
    assert a.state(path) == "succeeded"


def test_what_was_asked_before_there_were_keys_is_had_by_asking_again(
    served: Http, redis: redis_client.Redis, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/v1/visualizations/{served.ask(json=QUESTION).json()['id']}"
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)
    a = As(served, redis)
    unlike_unknown(a, "GET", path)
    assert a.ask() == path
    assert a.state(path) == "queued"


def test_who_may_read_all_sees_all_and_changes_nothing(
    a: As, served: Http, redis: redis_client.Redis
) -> None:
    path = a.ask()
    reader = As(served, redis, "read_all", "submit")
    assert reader.state(path) == "queued"
    for method, what in (("POST", f"{path}/cancel"), ("POST", f"{path}/retry"), ("DELETE", path)):
        response = reader(method, what)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert "'admin'" in response.json()["detail"]
    assert a.state(path) == "queued"
    reader.ask()
    assert reader("POST", f"{path}/cancel").json()["state"] == "canceled"
    assert a.state(path) == "queued"


def test_an_operator_cancels_for_everybody(a: As, b: As, served: Http, redis: redis_client.Redis) -> None:
    path = a.ask()
    b.ask()
    operator = As(served, redis, "admin")
    assert operator("POST", f"{path}/cancel").json()["state"] == "canceled"
    assert a.state(path) == b.state(path) == "canceled"


@pytest.mark.parametrize("running", [False, True])
def test_one_of_two_cancels_for_itself_alone(a: As, b: As, player: Player, running: bool) -> None:
    path = a.ask()
    b.ask()
    if running:
        player.begin(job_id(path))
    canceled = a("POST", f"{path}/cancel")
    assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    assert a.state(path) == "canceled"
    assert b.state(path) == ("running" if running else "queued")
    player.succeed(job_id(path))
    seen = a.get(path).json()
    assert (seen["state"], seen["result"], seen["images"]) == ("canceled", None, [])
    assert a.get(f"{path}/images/0").json()["code"] == "no_image"
    assert b.state(path) == "succeeded"
    assert a.ask() == path
    assert a.state(path) == "succeeded"


def test_the_last_who_cancels_stops_it(a: As, b: As, redis: redis_client.Redis) -> None:
    path = a.ask()
    b.ask()
    for caller in (a, b):
        assert caller("POST", f"{path}/cancel").json()["state"] == "canceled"
    assert redis.llen(QUEUE_KEY) == 0


def test_who_canceled_may_retry(a: As, b: As) -> None:
    path = a.ask()
    b.ask()
    a("POST", f"{path}/cancel")
    assert a("POST", f"{path}/retry").json()["state"] == "queued"
    assert a.state(path) == "queued"


def test_who_deletes_deletes_for_itself_as_long_as_others_asked(a: As, b: As, player: Player) -> None:
    path = a.ask()
    b.ask()
    player.succeed(job_id(path))
    assert a("DELETE", path).status_code == 204
    unlike_unknown(a, "GET", path)
    assert b.get(f"{path}/images/0").status_code == 200
    assert b("DELETE", path).status_code == 204
    unlike_unknown(b, "GET", path)
    assert b("POST", "/v1/visualizations", json=QUESTION).status_code == 202, "it is computed anew"


def test_a_list_has_what_its_caller_asked_for(a: As, b: As, served: Http, redis: redis_client.Redis) -> None:
    shared, own = a.ask(), a.ask(unit=8)
    b.ask()
    b.ask(unit=9)
    a("POST", f"{shared}/cancel")

    def listed(caller: As, query: str = "") -> list[tuple[str, str]]:
        found = caller.get(f"/v1/visualizations{query}").json()["visualizations"]
        return [(f"/v1/visualizations/{each['id']}", each["state"]) for each in found]

    assert listed(a) == [(own, "queued"), (shared, "canceled")]
    assert listed(a, "?state=canceled") == [(shared, "canceled")]
    assert [path for path, _ in listed(b)][1:] == [shared]
    assert len(listed(As(served, redis, "read_all"))) == 3


def test_turns_are_shared_among_keys(a: As, b: As) -> None:
    for unit in range(10):
        a.ask(unit=unit)
    assert b.get(b.ask(unit=20)).json()["queue_position"] <= 1


def test_scopes_mean_what_they_say(info: ModelInfo) -> None:
    assert [Caller("x", frozenset({scope})).sees_all for scope in ("read", "read_all", "admin")] == [
        *(False, True, True)
    ]
