"""Cancel, retry, delete: what becomes of a visualization in each state."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_client

from tests.service.api.test_visualizations import QUESTION, asked, problem_of
from tests.service.conftest import Http, Player
from workers.broker.keys import JOBS_KEY, job_key
from workers.broker.rq_names import QUEUE_KEY

NOBODY = "0" * 32


def state_of(http: Http, job_id: str) -> str:
    return str(http.get(f"/v1/visualizations/{job_id}").json()["state"])


def test_one_that_waits_is_canceled_at_once_and_again_is_the_same(
    served: Http, redis: redis_client.Redis
) -> None:
    path = f"/v1/visualizations/{asked(served)}/cancel"
    for _ in range(2):
        response = served("POST", path)
        assert (response.status_code, response.json()["state"]) == (200, "canceled")
    assert redis.llen(QUEUE_KEY) == 0


def test_a_running_one_is_asked_to_stop(served: Http, player: Player, redis: redis_client.Redis) -> None:
    job_id = asked(served)
    player.begin(job_id)
    response = served("POST", f"/v1/visualizations/{job_id}/cancel")
    assert (response.status_code, response.json()["state"]) == (202, "running")
    assert response.headers["retry-after"]
    assert redis.hexists(job_key(job_id), "cancel_requested")


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_what_has_ended_otherwise_is_not_canceled(served: Http, player: Player, state: str) -> None:
    job_id = asked(served)
    (player.succeed if state == "succeeded" else player.fail)(job_id)
    found = problem_of(served("POST", f"/v1/visualizations/{job_id}/cancel"), 409, "visualization_ended")
    assert found["state"] == state
    assert state in found["detail"]
    assert state_of(served, job_id) == state


def test_one_that_failed_or_was_canceled_is_tried_again(served: Http, player: Player) -> None:
    job_id = asked(served)
    path = f"/v1/visualizations/{job_id}/retry"
    for end in (lambda: player.fail(job_id), lambda: served("POST", f"/v1/visualizations/{job_id}/cancel")):
        end()
        for _ in range(2):
            response = served("POST", path)
            assert (response.status_code, response.json()["state"]) == (202, "queued")
            assert response.json()["problem"] is None


@pytest.mark.parametrize("forgotten", [False, True])
def test_one_that_succeeded_is_not_tried_again(served: Http, player: Player, forgotten: bool) -> None:
    job_id = asked(served)
    player.succeed(job_id)
    if forgotten:
        player.forget(job_id)
    found = problem_of(served("POST", f"/v1/visualizations/{job_id}/retry"), 409, "visualization_ended")
    assert found["state"] == "succeeded"


def end(http: Http, player: Player, job_id: str, state: str) -> None:
    if state == "canceled":
        http("POST", f"/v1/visualizations/{job_id}/cancel")
    elif state == "failed":
        player.fail(job_id)
    elif state != "queued":
        player.succeed(job_id)
    if state == "stored":
        player.forget(job_id)


@pytest.mark.parametrize("state", ["queued", "canceled", "failed", "succeeded", "stored"])
def test_nothing_is_left_of_what_was_deleted(
    served: Http, player: Player, redis: redis_client.Redis, settings: Any, state: str
) -> None:
    job_id, other = asked(served), asked(served, unit=8)
    end(served, player, job_id, state)
    served.get(f"/v1/visualizations/{job_id}")  # which promises the answer for an hour
    response = served("DELETE", f"/v1/visualizations/{job_id}")
    assert (response.status_code, response.content) == (204, b"")
    problem_of(served.get(f"/v1/visualizations/{job_id}"), 404, "unknown_visualization")
    problem_of(served.get(f"/v1/visualizations/{job_id}/images/0"), 404, "unknown_visualization")
    problem_of(served("DELETE", f"/v1/visualizations/{job_id}"), 404, "unknown_visualization")
    assert redis.keys(f"*{job_id}*") == []
    assert redis.zrange(JOBS_KEY, 0, -1) == redis.lrange(QUEUE_KEY, 0, -1) == [other.encode()]
    assert not (settings.home / "artifacts" / job_id).exists()
    again = served.ask(json=QUESTION)
    assert (again.status_code, again.json()["state"]) == (202, "queued")


def test_a_running_one_is_stopped_first_and_deleted_then(
    served: Http, player: Player, redis: redis_client.Redis
) -> None:
    job_id = asked(served)
    player.begin(job_id)
    response = served("DELETE", f"/v1/visualizations/{job_id}")
    assert (response.status_code, response.json()["state"]) == (202, "running")
    assert response.headers["content-type"] == "application/json"
    assert redis.hexists(job_key(job_id), "cancel_requested")


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")])
def test_what_there_is_not_is_unknown(served: Http, method: str, path: str) -> None:
    problem_of(served(method, f"/v1/visualizations/{NOBODY}{path}"), 404, "unknown_visualization")
    problem_of(served(method, f"/v1/visualizations/{NOBODY[1:]}{path}"), 404, "unknown_visualization")
