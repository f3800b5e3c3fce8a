"""Who cancels for itself alone has its open streams and waits ended; those of the others go on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis as redis_client
from fastapi import FastAPI

from service.auth.keys import Keys
from tests.service.api.test_events import listening
from tests.service.auth.test_callers import QUESTION, As, a, b, job_id  # noqa: F401 - fixtures
from tests.service.conftest import Http, Player
from tests.support.http_server import serving
from workers.broker.keys import events_key


@pytest.fixture
def header(redis: redis_client.Redis) -> dict[str, str]:
    """Of a key that asks beside the others."""
    return {"Authorization": f"Bearer {Keys(redis).create('test')[1]}"}


def header_of(caller: As) -> dict[str, str]:
    """What lets another client ask as this one."""
    return caller._header


@pytest.mark.parametrize("running", [False, True])
def test_a_stream_ends_for_who_withdrew_and_for_nobody_else(
    a: As,  # noqa: F811
    served: Http,
    app: FastAPI,
    player: Player,
    header: dict[str, str],
    running: bool,
) -> None:
    path = a.ask()
    served("POST", "/v1/visualizations", json=QUESTION, headers=header)
    if running:
        player.begin(job_id(path))
    with serving(app) as url, listening(f"{url}{path}/events", headers=header) as other:
        with listening(f"{url}{path}/events", headers=header_of(a)) as own:
            assert httpx.post(f"{url}{path}/cancel", headers=header_of(a)).json()["state"] == "canceled"
            assert own.result(30).states[-1] == "canceled"
        assert not other.done()
        player.succeed(job_id(path))
        assert other.result(30).states[-1] == "succeeded"
        assert "canceled" not in other.result().states


def test_a_wait_ends_for_who_withdrew(
    a: As,  # noqa: F811
    b: As,  # noqa: F811
    app: FastAPI,
    redis: redis_client.Redis,
) -> None:
    path = a.ask()
    b.ask()
    with serving(app) as url, ThreadPoolExecutor(1) as pool:
        wait = pool.submit(httpx.get, f"{url}{path}?wait=60", headers=header_of(a), timeout=90)
        while not redis.pubsub_numsub(events_key(job_id(path)))[0][1]:
            threading.Event().wait(0.01)
        httpx.post(f"{url}{path}/cancel", headers=header_of(a))
        assert wait.result(60).json()["state"] == "canceled"
    assert b.state(path) == "queued"
