"""Cached requests and responses: the same bytes again, and nothing that is out of date."""

from __future__ import annotations

import json

import pytest
import redis as redis_client
from fastapi import FastAPI

from proxygrad.spec import ModelInfo
from service.app import create_app
from service.backend import caches
from service.backend.caches import RequestCache
from service.backend.resources.visualizations import RESOURCE
from service.settings import ServiceSettings
from tests.service.api.test_visualizations import QUESTION, asked, problem_of
from tests.service.conftest import Http, Player
from workers.broker.keys import job_key
from workers.errors import StorageError
from workers.jobs.job import Job


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


def test_what_another_gateway_deleted_is_not_there(
    served: Http, path: str, settings: ServiceSettings
) -> None:
    other = create_app(settings)
    assert Http(other)("DELETE", path).status_code == 204
    other.state.backend.redis.close()
    problem_of(served.get(path), 404, "unknown_visualization")
    assert served.ask(json=QUESTION).status_code == 202


def test_an_answer_made_anew_takes_its_place(served: Http, path: str, redis: redis_client.Redis) -> None:
    own = job_key(path.rpartition("/")[2])
    result = json.loads(redis.hget(own, "result") or b"")
    redis.hset(own, mapping={"result": json.dumps(result | {"achieved_activation": 4.5}), "finished_at": 2e9})
    for response in (served.get(path), served.get(path), served.ask(json=QUESTION)):
        assert response.json()["result"]["achieved_activation"] == 4.5


def test_one_whose_picture_is_gone_is_computed_again(served: Http, path: str, app: FastAPI) -> None:
    app.state.backend.store.delete(f"{path.rpartition('/')[2]}/0.png")
    assert served.ask(json=QUESTION).status_code == 202
    assert served.get(path).json()["state"] == "queued"


def test_of_many_the_last_are_kept(
    served: Http, path: str, player: Player, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = app.state.backend
    documents = backend.responses._documents
    for cache in (documents, backend.jobs._status._cached):
        monkeypatch.setattr(cache, "_max_size", 1)
    other = asked(served, unit=8)
    player.succeed(other)
    for _ in range(2):
        assert served.get(f"/v1/visualizations/{other}").json()["spec"]["unit"] == 8
        assert served.get(path).json()["spec"]["unit"] == 7
    cached = [documents.get((job_id, "")) is not None for job_id in (other, path.rpartition("/")[2])]
    assert cached == [False, True]


SETTINGS = ServiceSettings.from_env({"HOME": "/home/ada"})


def body_of(**changes: str) -> bytes:
    """A request as text, with some values added as raw JSON."""
    fields = {"model": '"digits"', "layer": '"layer3"', "unit": "7"} | changes
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()


def test_the_same_text_is_read_once_and_never_for_another(info: ModelInfo) -> None:
    requests = RequestCache(SETTINGS)
    plain, chosen = body_of(preset='"fast"'), body_of(preset='"fast"', steps="128")
    first, second = requests.parse(RESOURCE, plain), requests.parse(RESOURCE, chosen)
    assert requests.parse(RESOURCE, plain) is first
    # Equal in every value, and yet not the same question: one of them chose its steps.
    made = [requests.submission(RESOURCE, asked, info, "me") for asked in (first, second)]
    assert [each.spec.steps for each in made] == [12, 128]
    assert made[0].job_id != made[1].job_id
    assert requests.submission(RESOURCE, first, info, "me") is made[0]
    other = requests.submission(RESOURCE, first, info, "you")
    assert (other.caller, other.job_id) == ("you", made[0].job_id)
    changed = info.model_copy(update={"digest": "1" * 64})
    assert requests.submission(RESOURCE, first, changed, "me").job_id != made[0].job_id


def test_long_texts_are_not_kept() -> None:
    requests = RequestCache(SETTINGS)
    long = body_of() + b" " * caches.MAX_BODY_BYTES
    assert requests.parse(RESOURCE, long) is not requests.parse(RESOURCE, long)


def test_the_bytes_of_documents_are_bounded(
    served: Http, path: str, player: Player, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = app.state.backend.responses._documents
    size = len(served.get(path).content)
    monkeypatch.setattr(documents, "_max_bytes", round(2.5 * size))
    others = []
    for unit in (8, 9):
        others.append(asked(served, unit=unit))
        player.succeed(others[-1])
        served.get(f"/v1/visualizations/{others[-1]}")
    kept = [documents.get((job_id, "")) is not None for job_id in (path.rpartition("/")[2], *others)]
    assert kept == [False, True, True]


@pytest.fixture
def without_curve(path: str, redis: redis_client.Redis) -> str:
    """As a worker writes the record since the curves are in the store alone."""
    own = job_key(path.rpartition("/")[2])
    result = json.loads(redis.hget(own, "result") or b"")
    redis.hset(own, mapping={"result": json.dumps(result | {"curve": []}), "finished_at": 2e9})
    return path


def test_a_document_has_the_curve_from_the_store(
    served: Http, without_curve: str, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    for response in (served.get(without_curve), served.ask(json=QUESTION)):
        assert response.json()["result"]["curve"] == [0.1, 3.5]
    with monkeypatch.context() as patch:  # read once
        patch.setattr(app.state.backend.jobs, "whole", None)
        assert served.get(without_curve).json()["result"]["curve"] == [0.1, 3.5]


def test_while_the_store_is_away_the_rest_is_answered(
    served: Http, without_curve: str, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(job: Job) -> Job:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(app.state.backend.jobs, "whole", away)
        result = served.get(without_curve).json()["result"]
        assert (result["curve"], result["achieved_activation"]) == ([], 3.5)
    assert served.get(without_curve).json()["result"]["curve"] == [0.1, 3.5]
