"""A list of what was asked: its order, its filters, its pages."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_client

from service.backend.resources import session
from tests.service.api.test_visualizations import asked, problem_of
from tests.service.conftest import Http, Player
from workers.broker.keys import JOBS_KEY


def page(http: Http, path: str = "/v1/visualizations", **query: Any) -> dict[str, Any]:
    response = http.get(path, params=query or None)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def ids(found: dict[str, Any]) -> list[str]:
    return [each["id"] for each in found["visualizations"]]


def test_the_newest_comes_first_in_whatever_state(served: Http, player: Player) -> None:
    waits, succeeded, failed = (asked(served, unit=unit) for unit in range(3))
    player.succeed(succeeded)
    player.fail(failed)
    found = page(served)
    assert ids(found) == [failed, succeeded, waits]
    assert found["links"] == {"self": "/v1/visualizations?limit=50", "next": None}
    first, second, third = found["visualizations"]
    assert [each["state"] for each in (first, second, third)] == ["failed", "succeeded", "queued"]
    assert (first["problem"]["code"], third["problem"]) == ("lane_failed", None)
    assert second["links"]["image"] == f"/v1/visualizations/{succeeded}/images/0"
    assert (third["links"]["image"], third["priority"]) == (None, "interactive")
    assert third["spec"]["unit"] == 0


def test_pages_follow_each_other_and_end(served: Http) -> None:
    known = [asked(served, unit=unit) for unit in range(7)][::-1]
    found, seen = page(served, limit=3), list[str]()
    while True:
        seen += ids(found)
        if found["links"]["next"] is None:
            break
        found = page(served, found["links"]["next"])
        assert page(served, found["links"]["self"]) == found
    assert seen == known


def test_what_comes_between_two_pages_moves_nothing(served: Http) -> None:
    known = [asked(served, unit=unit) for unit in range(4)][::-1]
    first = page(served, limit=2)
    asked(served, unit=9)
    assert ids(first) + ids(page(served, first["links"]["next"])) == known


def test_a_list_of_some_models_layers_and_states(served: Http, player: Player) -> None:
    deep = asked(served, layer="layer2", unit=1)
    ended = asked(served, unit=2)
    waits = asked(served, unit=3)
    player.succeed(ended)
    assert ids(page(served, layer="layer2")) == [deep]
    assert ids(page(served, layer=["layer2", "layer3"])) == [waits, ended, deep]
    assert ids(page(served, state="succeeded")) == [ended]
    assert ids(page(served, state=["succeeded", "queued"], layer="layer3")) == [waits, ended]
    assert ids(page(served, model="digits", limit=2)) == [waits, ended]
    assert ids(page(served, model="other")) == []
    assert "state=succeeded&state=queued" in page(served, state=["succeeded", "queued"])["links"]["self"]


def test_a_page_looks_at_a_bounded_number_of_records(served: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_SCANNED", 2)
    wanted = asked(served, layer="layer2", unit=1)
    for unit in range(3):
        asked(served, unit=unit)
    first = page(served, layer="layer2")
    assert (ids(first), first["links"]["next"] is None) == ([], False)
    assert ids(page(served, first["links"]["next"])) == [wanted]


def test_what_redis_has_forgotten_is_dropped(served: Http, player: Player, redis: redis_client.Redis) -> None:
    forgotten, kept = asked(served, unit=1), asked(served, unit=2)
    player.forget(forgotten)
    assert ids(page(served)) == [kept]
    assert redis.zcard(JOBS_KEY) == 1


def test_jobs_of_the_same_microsecond_are_each_listed_once(served: Http, redis: redis_client.Redis) -> None:
    known = {asked(served, unit=unit) for unit in range(5)}
    redis.zadd(JOBS_KEY, dict.fromkeys(known, 1_800_000_000.123456))
    found, seen = page(served, limit=2), list[str]()
    while found["visualizations"]:
        seen += ids(found)
        if found["links"]["next"] is None:
            break
        found = page(served, found["links"]["next"])
    assert sorted(seen) == sorted(known)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ({"limit": 0}, ["query", "limit"]),
        ({"limit": 201}, ["query", "limit"]),
        ({"state": "done"}, ["query", "state", "0"]),
        ({"cursor": "x"}, ["query", "cursor"]),
        ({"cursor": "WzEsMl0"}, ["query", "cursor"]),
        ({"cursor": "W05hTiwiYSJd"}, ["query", "cursor"]),
        ({"cursor": "[" * 200}, ["query", "cursor"]),
    ],
)
def test_what_is_no_list_is_refused(served: Http, query: dict[str, Any], where: list[str]) -> None:
    found = problem_of(served.get("/v1/visualizations", params=query), 422, "invalid_request")
    assert [str(part) for part in found["errors"][0]["location"]] == where


def test_the_valid_values_of_a_filter_are_given(served: Http) -> None:
    states = ["queued", "running", "succeeded", "failed", "canceled"]
    (field_error,) = served.get("/v1/visualizations", params={"state": "bogus"}).json()["errors"]
    assert (field_error["value"], field_error["choices"]) == ("bogus", states)
    assert (
        field_error["detail"]
        == "should be 'queued', 'running', 'succeeded', 'failed' or 'canceled', not 'bogus'"
    )
    (field_error,) = served.get("/v1/models/digits/layers", params={"kind": "foo"}).json()["errors"]
    assert (field_error["location"], field_error["value"]) == (["query", "kind", 0], "foo")
    assert "feature_map" in field_error["choices"]
