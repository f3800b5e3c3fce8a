"""Attributions of several callers: nobody attributes, or sees, what is another's."""

from __future__ import annotations

import json

import redis as redis_client

from tests.service.api.test_attributions import QUESTION, drawn
from tests.service.auth.test_callers import As, a, b, job_id  # noqa: F401 - fixtures
from tests.service.conftest import Http, Player

PATH = "/v1/attributions"


def uploaded(caller: As) -> str:
    response = caller(
        "POST", PATH, files={"image": ("picture", drawn())}, data={"attribution": json.dumps(QUESTION)}
    )
    assert response.status_code == 202, response.text
    return str(response.json()["links"]["self"])


def test_who_may_not_see_a_visualization_may_not_attribute_it(
    a: As,  # noqa: F811
    b: As,  # noqa: F811
    served: Http,
    redis: redis_client.Redis,
    player: Player,
) -> None:
    made = job_id(a.ask())
    theirs = QUESTION | {"image": {"visualization": made}}
    nobody = QUESTION | {"image": {"visualization": "0" * 32}}
    for state in ("queued", "succeeded"):
        if state == "succeeded":
            player.succeed(made)
        refused, unknown = b("POST", PATH, json=theirs), b("POST", PATH, json=nobody)
        assert refused.status_code == unknown.status_code == 404
        assert refused.json()["code"] == "unknown_visualization"
        assert refused.text.replace(made, "0" * 32) == unknown.text
        assert b.get(PATH).json()["attributions"] == []
    assert a("POST", PATH, json=theirs).status_code == 202
    sees_all = As(served, redis, "read_all", "submit")
    operator = As(served, redis, "admin")
    for caller in (sees_all, operator):
        assert caller("POST", PATH, json=theirs).is_success


def test_an_attribution_is_there_for_its_caller_alone(
    a: As,  # noqa: F811
    b: As,  # noqa: F811
) -> None:
    path = uploaded(a)
    for method, suffix in (
        ("GET", ""),
        ("GET", "/images/heatmap"),
        ("GET", "/images/overlay"),
        ("GET", "/contributions"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    ):
        response = b(method, path + suffix)
        assert (response.status_code, response.json()["code"]) == (404, "unknown_attribution"), suffix
    assert b.get(PATH).json()["attributions"] == []
    assert a.state(path) == "queued", "nothing of that changed anything"
    assert uploaded(b) == path, "who sends the same picture shares the job"
    assert b.state(path) == "queued"


def test_only_who_may_submit_sends_pictures(
    a: As,  # noqa: F811
    served: Http,
    redis: redis_client.Redis,
) -> None:
    reader = As(served, redis, "read")
    response = reader(
        "POST", PATH, files={"image": ("picture", drawn())}, data={"attribution": json.dumps(QUESTION)}
    )
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert a.get(PATH).json()["attributions"] == []
