"""Batches over HTTP."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest
import redis as redis_client
from fastapi import FastAPI

from tests.service.conftest import Http, Player
from tests.support.batch_player import BatchPlayer
from tests.support.http_server import serving
from workers.batches.repository import MOST_RUNNING
from workers.broker.rq_names import QUEUE_KEY

LAYER = {"model": "digits", "layer": "layer3"}


def asked(http: Any, **changes: Any) -> dict[str, Any]:
    """The batch that was asked for."""
    response: httpx.Response = http("POST", "/v1/batches", json=LAYER | changes)
    assert response.is_success, response.text
    document: dict[str, Any] = response.json()
    return document


def counts(document: dict[str, Any]) -> dict[str, int]:
    return {state: count for state, count in document["counts"].items() if count}


def test_a_whole_layer_is_asked_for_in_one_request(served: Http) -> None:
    response = served("POST", "/v1/batches", json=LAYER)
    batch = response.json()
    assert response.status_code == 202
    assert response.headers["Location"] == batch["links"]["self"] == f"/v1/batches/{batch['id']}"
    assert response.headers["Retry-After"] == "1"
    assert (batch["state"], counts(batch)) == ("running", {"waiting": 64})
    assert batch["units"] == {"total": 64, "start": 0, "stop": 64, "step": 1, "numbers": None}
    assert (batch["template"]["objective"], batch["template"]["size_px"]) == ("channel", 32)
    assert "unit" not in batch["template"]
    assert batch["priority"] == "batch"
    assert served.get(response.headers["Location"]).json() == batch


def test_it_is_followed_to_its_end(served: Http, worker: BatchPlayer) -> None:
    batch = asked(served, units=[9, 3, 5], steps=8)
    assert batch["units"]["numbers"] == [9, 3, 5]
    worker.expand()
    path = batch["links"]["self"]
    assert counts(served.get(path).json()) == {"queued": 3}
    worker.end(batch["id"], "succeeded", 9, 5)
    worker.end(batch["id"], "failed", 3)
    done = served.get(path).json()
    assert (done["state"], counts(done)) == ("failed", {"succeeded": 2, "failed": 1})
    assert done["finished_at"] is not None
    first, second, third = served.get(batch["links"]["visualizations"]).json()["visualizations"]
    assert [each["unit"] for each in (first, second, third)] == [9, 3, 5]
    assert second["problem"]["code"] == "lane_failed"
    assert (second["links"]["image"], second["achieved_activation"]) == (None, None)
    assert served.get(first["links"]["image"]).status_code == 200
    visualization = served.get(first["links"]["visualization"]).json()
    assert visualization["spec"]["unit"] == 9
    assert visualization["priority"] is None


def test_asked_again_it_is_there_and_what_failed_is_tried_again(served: Http, worker: BatchPlayer) -> None:
    batch = asked(served, units={"stop": 4})
    worker.expand()
    worker.end(batch["id"], "failed", 2)
    worker.end(batch["id"], "succeeded")
    again = served("POST", "/v1/batches", json=LAYER | {"units": [0, 1, 2, 3]})
    assert (again.status_code, again.json()["id"]) == (202, batch["id"])
    assert counts(again.json()) == {"succeeded": 3, "waiting": 1}
    worker.expand()
    worker.end(batch["id"], "succeeded")
    third = served("POST", "/v1/batches", json=LAYER | {"units": {"start": 0, "stop": 4}})
    assert (third.status_code, third.json()["state"]) == (200, "succeeded")


@pytest.mark.parametrize(
    ("changes", "code", "location"),
    [
        ({"layer": "layer9"}, "unknown_layer", ["body", "layer"]),
        ({"model": "mnist"}, "unknown_model", ["body", "model"]),
        ({"units": [1, 64]}, "unit_out_of_range", ["body", "units"]),
        ({"units": {"stop": 65}}, "unit_out_of_range", ["body", "units"]),
        ({"units": [1, 1]}, "invalid_request", ["body", "units"]),
        ({"units": []}, "invalid_request", ["body", "units"]),
        ({"units": 5}, "invalid_request", ["body", "units"]),
        ({"units": "some"}, "invalid_request", ["body", "units"]),
        ({"units": [1, -1]}, "invalid_request", ["body", "units", 1]),
        ({"units": {"stop": 0}}, "invalid_request", ["body", "units", "stop"]),
        ({"units": {"from": 5}}, "invalid_request", ["body", "units", "from"]),
        ({"units": {"range": 5}}, "invalid_request", ["body", "units", "range"]),
        ({"unit": 5}, "invalid_request", ["body", "unit"]),
        ({"steps": 4000}, "limit_exceeded", ["body", "steps"]),
        ({"objective": "logit"}, "objective_mismatch", ["body", "objective"]),
        ({"deadline_s": 0}, "invalid_request", ["body", "deadline_s"]),
        ({"model": "broken"}, "model_unavailable", None),
    ],
)
def test_what_cannot_be_asked_is_refused(
    served: Http, redis: redis_client.Redis, changes: dict[str, Any], code: str, location: list[str] | None
) -> None:
    response = served("POST", "/v1/batches", json=LAYER | changes)
    problem = response.json()
    assert problem["code"] == code, problem
    if location is not None:
        assert problem["errors"][0]["location"] == location
    assert not redis.keys("proxygrad:batch*")


@pytest.mark.parametrize(
    ("units", "detail", "value", "maximum", "choices"),
    [
        ([1, 64], "unit 64 is out of range: layer 'layer3' has units 0 to 63", 64, 63, None),
        ({"stop": 65}, "unit 64 is out of range: layer 'layer3' has units 0 to 63", 64, 63, None),
        ([1, 1], "unit 1 is listed twice", [1, 1], None, None),
        ([], "should have at least 1 item, not 0", [], None, None),
        (
            {"start": 5, "stop": 3},
            "the range is empty: start 5 is not below stop 3",
            {"start": 5, "stop": 3},
            None,
            None,
        ),
        (
            "some",
            "should be 'all', a list of units, or a range with start, stop and step, not 'some'",
            "some",
            None,
            None,
        ),
        (
            {"begin": 1, "stop": 3},
            "unknown field; valid: start, stop, step",
            1,
            None,
            ["start", "stop", "step"],
        ),
    ],
)
def test_what_is_wrong_with_the_units_is_said_once_with_the_value(
    served: Http, units: Any, detail: str, value: Any, maximum: int | None, choices: list[str] | None
) -> None:
    (field_error,) = served("POST", "/v1/batches", json=LAYER | {"units": units}).json()["errors"]
    found = (field_error["detail"], field_error["value"], field_error["maximum"], field_error["choices"])
    assert found == (detail, value, maximum, choices)


def test_the_number_of_units_is_bounded(served: Http, app: FastAPI) -> None:
    settings = app.state.backend.settings
    object.__setattr__(settings, "max_batch_units", 63)
    problem = served("POST", "/v1/batches", json=LAYER).json()
    assert problem["code"] == "limit_exceeded"
    assert "64 units are more than this server takes in one batch: 63" in problem["detail"]
    assert (problem["errors"][0]["value"], problem["errors"][0]["maximum"]) == (64, 63)
    assert asked(served, units={"stop": 63})["state"] == "running"


def test_the_cost_of_each_unit_is_bounded(served: Http, app: FastAPI) -> None:
    object.__setattr__(app.state.backend.settings, "max_cost", 0.1)
    assert served("POST", "/v1/batches", json=LAYER).json()["code"] == "cost_too_high"
    assert asked(served, steps=1)["state"] == "running"


def test_the_body_is_bounded_and_must_be_json(served: Http) -> None:
    header = {"Content-Type": "application/json"}
    for content, code in [
        (b"{", "invalid_json"),
        (b"[" * 99, "json_too_deep"),
        (b" " * 99999, "body_too_large"),
    ]:
        assert served("POST", "/v1/batches", content=content, headers=header).json()["code"] == code
    assert served("POST", "/v1/batches", content=b"{}").json()["code"] == "unsupported_media_type"


def test_cancel_is_safe_to_repeat_and_refused_where_there_is_nothing_to_cancel(
    served: Http, worker: BatchPlayer, redis: redis_client.Redis
) -> None:
    batch = asked(served)
    worker.expand()
    for _ in range(2):
        canceled = served("POST", batch["links"]["cancel"])
        assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    assert counts(canceled.json()) == {"canceled": 64}
    assert redis.llen(QUEUE_KEY) == 0
    other = asked(served, units=[1], steps=9)
    worker.expand()
    worker.end(other["id"], "succeeded")
    refused = served("POST", other["links"]["cancel"])
    assert (refused.status_code, refused.json()["code"]) == (409, "batch_ended")
    assert refused.json()["state"] == "succeeded"


def test_cancel_while_a_unit_runs_says_to_look_again(
    served: Http, worker: BatchPlayer, player: Player
) -> None:
    batch = asked(served, units=[1, 2])
    worker.expand()
    unit = served.get(batch["links"]["visualizations"]).json()["visualizations"][0]
    player.begin(unit["id"])
    response = served("POST", batch["links"]["cancel"])
    assert (response.status_code, response.json()["state"]) == (202, "running")
    assert counts(response.json()) == {"running": 1, "canceled": 1}


def test_delete_forgets_the_batch_and_not_the_answers(served: Http, worker: BatchPlayer) -> None:
    batch = asked(served, units=[1, 2])
    worker.expand()
    worker.end(batch["id"], "succeeded", 1)
    image = served.get(batch["links"]["visualizations"]).json()["visualizations"][0]["links"]["image"]
    assert served("DELETE", batch["links"]["self"]).status_code == 204
    for path in (batch["links"]["self"], batch["links"]["visualizations"], batch["links"]["atlas"]):
        assert served.get(path).json()["code"] == "unknown_batch"
    assert served("DELETE", batch["links"]["self"]).json()["code"] == "unknown_batch"
    assert served.get(image).status_code == 200


def test_a_wait_is_over_with_the_batch(served: Http, app: FastAPI, worker: BatchPlayer) -> None:
    batch = asked(served, units=[1])
    worker.expand()
    with serving(app) as url:
        waiting: list[dict[str, Any]] = []

        def wait() -> None:
            response = httpx.get(f"{url}{batch['links']['self']}?wait=60", timeout=90)
            waiting.append(response.json())

        thread = threading.Thread(target=wait)
        began_s = time.monotonic()
        thread.start()
        channel = f"proxygrad:events:{batch['id']}"
        while not app.state.backend.redis.pubsub_numsub(channel)[0][1]:
            assert time.monotonic() - began_s < 30
        worker.end(batch["id"], "succeeded")
        thread.join(30)
    assert waiting[0]["state"] == "succeeded"
    assert served.get(batch["links"]["self"], params={"wait": 0.1}).json() == waiting[0]


def test_a_wait_with_the_request_is_answered_when_it_is_over(served: Http) -> None:
    response = served("POST", "/v1/batches", json=LAYER, headers={"Prefer": "wait=0"})
    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=0")


def test_a_caller_has_so_many_batches(served: Http, redis: redis_client.Redis) -> None:
    for seed in range(MOST_RUNNING):
        asked(served, units=[1], seed=seed)
    response = served("POST", "/v1/batches", json=LAYER | {"units": [1], "seed": MOST_RUNNING})
    assert (response.status_code, response.json()["code"]) == (429, "too_many_batches")
    assert response.headers["Retry-After"] == "30"
