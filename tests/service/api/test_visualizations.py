"""Ask, follow, fetch: the routes against a real queue and a real store."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx
import pytest
import redis as redis_client
from fastapi import FastAPI

from tests.service.conftest import Http, Player
from tests.support.damaged_files import DAMAGES, NAMES, Damage
from workers.broker.keys import job_key
from workers.broker.rq_names import QUEUE_KEY

QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}


def asked(http: Http, **changes: Any) -> str:
    """Ask, and give the id."""
    return str(http.ask(json=QUESTION | changes).json()["id"])


def problem_of(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["code"], found["status"]) == (status, code, status), found
    assert {"type", "title", "detail", "errors"} <= found.keys()
    return found


def test_a_new_question_is_queued_and_said_where(served: Http, redis: redis_client.Redis) -> None:
    response = served.ask(json=QUESTION)
    answer = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/visualizations/{answer['id']}" == answer["links"]["self"]
    assert int(response.headers["retry-after"]) >= 1
    assert (answer["state"], answer["queue_position"]) == ("queued", 0)
    assert answer["progress"] == {"step": 0, "steps": 128, "activation": None}
    assert (answer["spec"]["objective"], answer["spec"]["size_px"]) == ("channel", 32)
    assert (answer["result"], answer["images"], answer["links"]["image"]) == (None, [], None)
    assert redis.lrange(QUEUE_KEY, 0, -1) == [answer["id"].encode()]


def test_the_same_question_is_joined_and_another_waits_behind_it(
    served: Http, redis: redis_client.Redis
) -> None:
    first, again = (
        served.ask(json=QUESTION).json(),
        served.ask(json=QUESTION | {"objective": "channel"}).json(),
    )
    other = served.ask(json=QUESTION | {"unit": 8}).json()
    assert first["id"] == again["id"] != other["id"]
    assert other["queue_position"] == 1
    assert redis.llen(QUEUE_KEY) == 2


def test_a_hundred_equal_questions_at_once_are_one_job(served: Http, redis: redis_client.Redis) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: served.ask(json=QUESTION), range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert redis.llen(QUEUE_KEY) == 1


def test_many_questions_of_one_moment_are_answered_each_for_itself(
    served: Http, app: FastAPI, player: Player, redis: redis_client.Redis
) -> None:
    """New ones, one asked by many, answered ones and wrong ones, all in one event loop."""
    player.succeed(asked(served, unit=0))
    units = [*range(60), *[7] * 30, 64, 65]

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            sent = [client.post("/v1/visualizations", json=QUESTION | {"unit": unit}) for unit in units]
            return list(await asyncio.gather(*sent))

    answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [200, *[202] * 89, 422, 422]
    assert [answer.json()["spec"]["unit"] for answer in answers[:90]] == units[:90]
    assert len({answer.json()["id"] for answer in answers[:90]}) == 60
    assert redis.llen(QUEUE_KEY) == 60, "each once, and the one that was answered by hand"


def test_a_running_job_shows_its_progress(served: Http, player: Player) -> None:
    job_id = asked(served)
    player.begin(job_id, step=31)
    answer = served.get(f"/v1/visualizations/{job_id}").json()
    assert (answer["state"], answer["queue_position"]) == ("running", None)
    assert answer["progress"] == {"step": 31, "steps": 128, "activation": 0.25}
    assert answer["waited_s"] == pytest.approx(1.5, abs=0.001)


def test_a_finished_job_is_answered_at_once_with_its_result(served: Http, player: Player) -> None:
    job_id = asked(served)
    player.succeed(job_id)
    response = served.ask(json=QUESTION)
    answer = response.json()
    assert response.status_code == 200
    assert "retry-after" not in response.headers
    assert (answer["state"], answer["result"]["achieved_activation"]) == ("succeeded", 3.5)
    assert (answer["waited_s"], answer["ran_s"]) == (pytest.approx(1.5), pytest.approx(2.5))
    path = f"/v1/visualizations/{job_id}"
    assert answer["images"][0]["links"] == {"self": f"{path}/images/0"}
    assert answer["links"] == {
        "self": path,
        "image": f"{path}/images/0",
        "grid": None,
        "animation": None,
        **{name: f"{path}/{name}" for name in ("events", "cancel", "retry")},
    }
    times = [datetime.fromisoformat(answer[name]) for name in ("created_at", "started_at", "finished_at")]
    assert times == sorted(times)
    assert answer["created_at"].endswith("Z")


@pytest.mark.parametrize(
    ("images", "values", "stride", "kept"),
    [(1, 129, 1, 129), (1, 1025, 2, 513), (1, 2049, 3, 684), (16, 2049, 67, 32)],
)
def test_long_curves_are_thinned_but_for_their_ends(
    served: Http, player: Player, images: int, values: int, stride: int, kept: int
) -> None:
    job_id = asked(served, steps=values - 1, images=images, compare=images > 1)
    player.curve = tuple(0.1 + number / 7 for number in range(values))
    player.succeed(job_id)
    answer = served.get(f"/v1/visualizations/{job_id}")
    result = answer.json()["result"]
    assert answer.json()["curve_stride"] == stride
    for curve in [result["curve"], *(image["curve"] for image in result["images"])]:
        assert curve[:2] == [0.1, 0.1 + stride / 7]
        assert curve[-1] == 0.1 + (values - 1) / 7
        assert len(curve) == kept
    assert len(answer.content) < 64 * 1024


def test_the_store_answers_for_what_redis_forgot(served: Http, player: Player) -> None:
    job_id = asked(served)
    player.succeed(job_id)
    before = served.get(f"/v1/visualizations/{job_id}").json()
    player.forget(job_id)
    assert served.get(f"/v1/visualizations/{job_id}").json() == before
    assert served.ask(json=QUESTION).status_code == 200


def test_a_failed_job_says_why_and_is_tried_again_when_asked_again(served: Http, player: Player) -> None:
    job_id = asked(served)
    player.fail(job_id)
    answer = served.get(f"/v1/visualizations/{job_id}").json()
    assert (answer["state"], answer["problem"]["code"]) == ("failed", "lane_failed")
    problem_of(served.get(f"/v1/visualizations/{job_id}/images/0"), 404, "no_image")
    again = served.ask(json=QUESTION)
    assert (again.status_code, again.json()["state"]) == (202, "queued")


def test_an_id_that_nobody_has_is_unknown_and_so_is_a_malformed_one(served: Http) -> None:
    problem_of(served.get(f"/v1/visualizations/{'0' * 32}"), 404, "unknown_visualization")
    problem_of(served.get(f"/v1/visualizations/{'0' * 32}/images/0"), 404, "unknown_visualization")
    for malformed in ("x", "A" * 32, "..", "%2e%2e%2fvalkey"):
        assert served.get(f"/v1/visualizations/{malformed}").status_code == 404


@pytest.mark.parametrize(
    ("changes", "status", "code", "field", "said"),
    [
        ({"model": "digit"}, 404, "unknown_model", "model", "digits"),
        ({"layer": "layr3"}, 404, "unknown_layer", "layer", "layer3"),
        ({"unit": 64}, 422, "unit_out_of_range", "unit", "0 to 63"),
        ({"unit": 10**30}, 422, "unit_out_of_range", "unit", "0 to 63"),
        ({"objective": "logit"}, 422, "objective_mismatch", "objective", "channel, neuron"),
        (
            {"objective": "neuron", "position": [8, 0]},
            422,
            "position_out_of_range",
            "position",
            "rows 0 to 7",
        ),
        ({"steps": 0}, 422, "invalid_request", "steps", "1 to 2048"),
        ({"steps": 5000}, 422, "invalid_request", "steps", "1 to 2048"),
        ({"steps": 2049}, 422, "limit_exceeded", "steps", "2048"),
        ({"size_px": 513}, 422, "limit_exceeded", "size_px", "PROXYGRAD_MAX_SIZE_PX"),
        ({"size_px": 7}, 422, "invalid_request", "size_px", "8 to 512"),
        ({"slopes": 0.1}, 422, "invalid_request", "slopes", "slope"),
    ],
)
def test_a_question_that_cannot_be_answered_names_field_value_and_choices(
    served: Http, changes: dict[str, Any], status: int, code: str, field: str, said: str
) -> None:
    problem = problem_of(served.ask(json=QUESTION | changes), status, code)
    assert said in problem["detail"]
    field_error = problem["errors"][0]
    assert field_error["location"] == ["body", field]
    value = changes[field]
    assert field_error["value"] == (value if value != 10**30 else "a whole number of 100 bits")


def test_a_model_that_could_not_be_loaded_is_unavailable_with_the_workers_reason(served: Http) -> None:
    problem = problem_of(served.ask(json=QUESTION | {"model": "broken"}), 503, "model_unavailable")
    assert "broken.safetensors is truncated" in problem["detail"]


def test_a_unit_out_of_range_carries_the_range_for_programs(served: Http) -> None:
    field_error = served.ask(json=QUESTION | {"unit": 99}).json()["errors"][0]
    assert (field_error["value"], field_error["minimum"], field_error["maximum"]) == (99, 0, 63)


def test_nothing_is_queued_for_a_refused_question(served: Http, redis: redis_client.Redis) -> None:
    served.ask(json=QUESTION | {"unit": 64})
    served.ask(json=QUESTION | {"steps": 2049})
    assert redis.llen(QUEUE_KEY) == 0


def test_without_a_worker_a_question_is_refused_for_now(http: Http) -> None:
    response = http.ask(json=QUESTION)
    assert "python -m workers" in problem_of(response, 503, "no_worker")["detail"]
    assert int(response.headers["retry-after"]) >= 1


def test_a_wait_for_a_job_that_ended_takes_no_time_and_says_it_was_honored(
    served: Http, player: Player
) -> None:
    player.succeed(asked(served))
    response = served.ask(json=QUESTION, headers={"Prefer": "respond-async, wait=60"})
    assert (response.status_code, response.headers["preference-applied"]) == (200, "wait=60")


def test_a_wait_that_is_too_short_ends_with_what_there_is(served: Http) -> None:
    response = served.ask(json=QUESTION, headers={"Prefer": "wait=0"})
    assert (response.status_code, response.json()["state"]) == (202, "queued")
    later = served.get(f"/v1/visualizations/{response.json()['id']}", params={"wait": 0.1})
    assert (later.status_code, later.json()["state"]) == (200, "queued")


@pytest.mark.parametrize("wait", ["61", "-1", "nan", "inf", "soon"])
def test_a_wait_outside_its_range_is_refused(served: Http, wait: str) -> None:
    job_id = asked(served)
    problem = problem_of(
        served.get(f"/v1/visualizations/{job_id}", params={"wait": wait}), 422, "invalid_request"
    )
    assert problem["errors"][0]["location"] == ["query", "wait"]


@pytest.mark.parametrize("damage", [*DAMAGES, lambda _: b'{"id": 1}'], ids=[*NAMES, "no record"])
def test_a_damaged_record_is_as_good_as_gone(
    served: Http, player: Player, settings: Any, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = asked(served)
    path, record = f"/v1/visualizations/{job_id}", settings.home / "artifacts" / job_id / "result.json"
    player.succeed(job_id)
    player.forget(job_id)
    whole = record.read_bytes()
    for method in ("GET", "DELETE"):
        record.write_bytes(damage(whole))
        response = served(method, path)
        problem_of(response, 404, "unknown_visualization")
        assert str(settings.home) not in response.text
        assert not record.exists()
    assert "result.json" in caplog.text
    record.write_bytes(damage(whole))
    again = served.ask(json=QUESTION)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, job_id, "queued")
    player.succeed(job_id)
    assert served.get(path).json()["state"] == "succeeded"


def test_a_store_that_cannot_be_read_is_a_problem_of_the_store(
    served: Http, player: Player, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = asked(served)
    player.succeed(job_id)
    player.forget(job_id)
    record = settings.home / "artifacts" / job_id / "result.json"
    record.unlink()
    record.symlink_to(record)  # no end is found
    response = served.get(f"/v1/visualizations/{job_id}")
    problem_of(response, 503, "storage_unavailable")
    assert str(settings.home) not in response.text
    assert "result.json" in caplog.text


def test_an_answer_that_was_named_is_kept_for_a_while(
    served: Http, player: Player, redis: redis_client.Redis
) -> None:
    job_id = asked(served)
    player.succeed(job_id)
    assert redis.exists(f"proxygrad:pin:{job_id}") == 0
    served.get(f"/v1/visualizations/{job_id}")
    assert 0 < redis.ttl(f"proxygrad:pin:{job_id}") <= 3600


def test_what_is_left_counts_by_the_clock_of_redis(
    served: Http, player: Player, redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a machine a day ahead, a run of a minute had 86,460 s left, or none."""
    job_id = asked(served)
    player.begin(job_id)
    seconds, _ = redis.time()
    redis.hset(job_key(job_id), mapping={"expected_at": seconds + 60})
    monkeypatch.setattr("time.time", lambda: seconds + 86_400.0)
    answer = served.get(f"/v1/visualizations/{job_id}").json()
    assert 0 < answer["eta_s"] <= 61
    assert answer["ran_s"] < 60
