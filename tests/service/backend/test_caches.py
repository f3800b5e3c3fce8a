"""Answers that a gateway keeps in memory: the same bytes again, and nothing that is not so any more."""

from __future__ import annotations

import json

import pytest
import redis as redis_client
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from tests.service.api.test_visualizations import QUESTION, asked, problem_of
from tests.service.conftest import Http, Player
from workers.broker.keys import job_key


@pytest.fixture
def path(served: Http, player: Player) -> str:
    """An answer that the gateway has sent, and keeps."""
    job_id = asked(served)
    player.succeed(job_id)
    path = f"/v1/visualizations/{job_id}"
    assert served.get(path).json()["state"] == "succeeded"
    return path


def test_asked_again_or_looked_at_again_it_is_the_same_document(served: Http, path: str) -> None:
    first = served.get(path)
    assert served.get(path).content == first.content == served.ask(json=QUESTION).content
    assert first.json()["result"]["achieved_activation"] == 3.5
    assert first.headers["content-type"] == "application/json"
    assert "retry-after" not in first.headers


def test_what_the_store_alone_has_is_the_same_document(served: Http, path: str, player: Player) -> None:
    first = served.get(path)
    player.forget(path.rpartition("/")[2])
    assert served.get(path).json() == first.json()


def test_what_another_gateway_deleted_is_not_there(served: Http, path: str, settings: Settings) -> None:
    other = create_app(settings)
    assert Http(other)("DELETE", path).status_code == 204
    other.state.gateway.redis.close()
    problem_of(served.get(path), 404, "unknown_visualization")
    assert served.ask(json=QUESTION).status_code == 202


def test_an_answer_made_anew_takes_its_place(served: Http, path: str, redis: redis_client.Redis) -> None:
    own = job_key(path.rpartition("/")[2])
    result = json.loads(redis.hget(own, "result") or b"")
    redis.hset(own, mapping={"result": json.dumps(result | {"achieved_activation": 4.5}), "finished_at": 2e9})
    for response in (served.get(path), served.get(path), served.ask(json=QUESTION)):
        assert response.json()["result"]["achieved_activation"] == 4.5


def test_one_whose_picture_is_gone_is_computed_again(served: Http, path: str, app: FastAPI) -> None:
    app.state.gateway.store.delete(f"{path.rpartition('/')[2]}/0.png")
    assert served.ask(json=QUESTION).status_code == 202
    assert served.get(path).json()["state"] == "queued"


def test_of_many_the_last_are_kept(
    served: Http, path: str, player: Player, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = app.state.gateway
    for kept in (gateway.renderings._kept, gateway.jobs._status._cached):
        monkeypatch.setattr(kept, "_most", 1)
    other = asked(served, unit=8)
    player.succeed(other)
    for _ in range(2):
        assert served.get(f"/v1/visualizations/{other}").json()["spec"]["unit"] == 8
        assert served.get(path).json()["spec"]["unit"] == 7
    assert [gateway.renderings._kept.get(job_id) is None for job_id in (other, path.rpartition("/")[2])] == [
        True,
        False,
    ]
