"""The `Idempotency-Key` header: one key, one request."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis as redis_client

from service.auth.keys import Keys
from service.backend.idempotency import KEPT_S
from tests.service.conftest import Http, Player
from tests.support.batch_player import BatchPlayer
from workers.broker.rq_names import QUEUE_KEY

QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}


def ask(http: Http, key: str, **changes: object) -> httpx.Response:
    return http.ask(json=QUESTION | changes, headers={"Idempotency-Key": key})


def test_the_same_request_gets_the_same_answer(served: Http, redis: redis_client.Redis) -> None:
    first, again = ask(served, "one"), ask(served, "one")
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert redis.llen(QUEUE_KEY) == 1


def test_order_and_spacing_of_the_body_do_not_matter(served: Http) -> None:
    ask(served, "one")
    body = b'{"unit": 7,\n "layer": "layer3", "model": "digits"}'
    headers = {"Idempotency-Key": "one", "Content-Type": "application/json"}
    assert served.ask(content=body, headers=headers).status_code == 202


def test_another_body_is_a_conflict_and_queues_nothing(served: Http, redis: redis_client.Redis) -> None:
    ask(served, "one")
    for changes in ({"unit": 8}, {"priority": "batch"}, {"steps": 128}):
        conflict = ask(served, "one", **changes)
        assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_key_reused")
        assert "'one'" in conflict.json()["detail"]
    assert redis.llen(QUEUE_KEY) == 1


def test_a_repeated_request_does_not_start_again_what_has_failed(
    served: Http, player: Player, redis: redis_client.Redis
) -> None:
    job_id = ask(served, "one").json()["id"]
    player.fail(job_id)
    again = ask(served, "one")
    assert (again.status_code, again.json()["state"]) == (200, "failed")
    assert ask(served, "two").json()["state"] == "queued", "a new request does"


def test_a_refused_request_leaves_its_key_free(served: Http) -> None:
    assert ask(served, "one", unit=64).status_code == 422
    assert ask(served, "one").status_code == 202


def test_what_was_deleted_meanwhile_is_asked_anew(served: Http, player: Player) -> None:
    job_id = ask(served, "one").json()["id"]
    player.succeed(job_id)
    assert served("DELETE", f"/v1/visualizations/{job_id}").status_code == 204
    assert ask(served, "one").status_code == 202


def test_of_many_at_once_with_two_bodies_one_body_wins(served: Http, redis: redis_client.Redis) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda count: ask(served, "one", unit=count % 2), range(40)))
    assert sorted({answer.status_code for answer in answers}) == [202, 409]
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert redis.llen(QUEUE_KEY) == 1


def test_it_is_kept_for_a_day(served: Http, redis: redis_client.Redis) -> None:
    ask(served, "one")
    (name,) = redis.keys("proxygrad:idempotency:*")
    assert KEPT_S - 10 < redis.ttl(name) <= KEPT_S


def test_callers_have_names_of_their_own(served: Http, redis: redis_client.Redis) -> None:
    for unit in (7, 8):
        _, token = Keys(redis).create("test")
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "one"}
        time.sleep(0.6)  # after which a new key is looked for
        assert served.ask(json=QUESTION | {"unit": unit}, headers=headers).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_another_length_is_refused(served: Http, key: str) -> None:
    refused = ask(served, key)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert refused.json()["errors"][0]["location"] == ["header", "idempotency-key"]


def test_the_longest_key_is_taken(served: Http) -> None:
    assert ask(served, "x" * 255).status_code == 202


LAYER = {"model": "digits", "layer": "layer3", "units": [1, 2]}


def ask_batch(http: Http, key: str, **changes: object) -> httpx.Response:
    return http("POST", "/v1/batches", json=LAYER | changes, headers={"Idempotency-Key": key})


def test_a_batch_has_one_request_for_a_key_too(served: Http, worker: BatchPlayer) -> None:
    batch = ask_batch(served, "one").json()
    worker.expand()
    worker.end(batch["id"], "failed")
    again = ask_batch(served, "one")
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (200, batch["id"], "failed")
    conflict = ask_batch(served, "one", units=[1, 3])
    assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_key_reused")
    assert ask_batch(served, "two").json()["state"] == "running", "a new request tries its units again"


def test_a_refused_or_deleted_batch_leaves_its_key_free(served: Http) -> None:
    assert ask_batch(served, "one", units=[99]).status_code == 422
    batch = ask_batch(served, "one").json()
    assert served("DELETE", batch["links"]["self"]).status_code == 204
    assert ask_batch(served, "one").json()["state"] == "running"


def test_a_key_is_for_one_resource(served: Http) -> None:
    ask(served, "one")
    assert ask_batch(served, "one").status_code == 409
    refused = ask_batch(served, "x" * 256)
    assert refused.json()["errors"][0]["location"] == ["header", "idempotency-key"]
