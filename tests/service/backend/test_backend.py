"""Waiting, and Redis going away and coming back: real servers on both sides."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis as redis_client
from fastapi import FastAPI

from proxygrad.spec import ModelInfo
from service.app import create_app
from service.settings import ServiceSettings
from service.stack.valkey import EmbeddedValkey
from tests.service.conftest import PNG, Http, Player
from tests.support.http_server import serving
from workers.broker.connection import connect
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.storage.store import Store

QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}

#: What "a few seconds" means here: one timeout of two seconds, and air for a busy machine.
QUICKLY_S = 5.0


async def many(url: str, path: str, count: int) -> list[str]:
    """As many answers, asked for at once; on bare sockets, since a client's own work is long for hundreds."""
    where = httpx.URL(url)

    async def ask() -> str:
        reader, writer = await asyncio.open_connection(where.host, where.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {where.host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.decode()

    return await asyncio.gather(*(ask() for _ in range(count)))


def patient(url: str) -> httpx.Client:
    """A client for many threads, with room for a connection each."""
    return httpx.Client(base_url=url, timeout=90, limits=httpx.Limits(max_connections=200))


@contextmanager
def after(delay_s: float, action: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(delay_s, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_wait_ends_when_the_job_does(served: Http, app: FastAPI, player: Player) -> None:
    job_id = str(served.ask(json=QUESTION).json()["id"])
    with serving(app) as url, after(0.3, lambda: player.succeed(job_id)):
        before_s = time.monotonic()
        answer = httpx.get(f"{url}/v1/visualizations/{job_id}", params={"wait": 30}, timeout=40)
        assert answer.json()["state"] == "succeeded"
        assert time.monotonic() - before_s < 20  # of the 30 it would wait


def test_a_submission_that_waits_is_answered_with_the_result(
    served: Http, app: FastAPI, player: Player
) -> None:
    job_id = str(served.ask(json=QUESTION).json()["id"])
    with serving(app) as url, after(0.3, lambda: player.succeed(job_id)):
        answer = httpx.post(
            f"{url}/v1/visualizations", json=QUESTION, headers={"Prefer": "wait=30"}, timeout=40
        )
        assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
        assert answer.headers["preference-applied"] == "wait=30"


def test_long_waits_hold_no_thread(served: Http, app: FastAPI, player: Player) -> None:
    """Twice as many waits as the gateway has threads (40), and the health check is still quick."""
    job_id = str(served.ask(json=QUESTION).json()["id"])
    waits = 80
    with serving(app) as url, ThreadPoolExecutor(waits) as pool, patient(url) as client:
        path = f"/v1/visualizations/{job_id}?wait=60"
        answers = [pool.submit(client.get, path) for _ in range(waits)]
        time.sleep(0.5)
        before_s = time.monotonic()
        assert client.get("/readyz").status_code == 200
        assert time.monotonic() - before_s < 20  # of the minute they wait
        assert not any(answer.done() for answer in answers)
        player.succeed(job_id)
        assert {answer.result().json()["state"] for answer in answers} == {"succeeded"}


def test_closing_lets_go_of_waits_at_once(served: Http, app: FastAPI) -> None:
    job_id = str(served.ask(json=QUESTION).json()["id"])
    with serving(app) as url, after(0.3, app.state.backend.close):
        before_s = time.monotonic()
        answer = httpx.get(f"{url}/v1/visualizations/{job_id}", params={"wait": 60}, timeout=70)
        assert (answer.status_code, answer.json()["state"]) == (200, "queued")
        assert time.monotonic() - before_s < 30


@pytest.fixture
def lone_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server that this test may stop."""
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        yield valkey


@pytest.fixture
def lone_app(lone_valkey: EmbeddedValkey, tmp_path: Path, info: ModelInfo) -> Iterator[FastAPI]:
    """A gateway on that server, with a worker that published `digits`."""
    with connect(lone_valkey.url) as redis:
        catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=600)
    app = create_app(
        ServiceSettings.from_env({"REDIS_URL": lone_valkey.url, "PROXYGRAD_HOME": str(tmp_path)})
    )
    yield app
    app.state.backend.redis.close()


def refused(response: httpx.Response, before_s: float) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "redis_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    assert time.monotonic() - before_s < QUICKLY_S


def test_redis_gone_is_said_quickly_and_its_return_is_noticed(
    lone_app: FastAPI, lone_valkey: EmbeddedValkey
) -> None:
    with serving(lone_app) as url:
        asked = httpx.post(f"{url}/v1/visualizations", json=QUESTION)
        assert asked.status_code == 202
        lone_valkey.close()
        for method, path in [
            ("GET", "/readyz"),
            ("GET", "/v1/models"),
            ("POST", "/v1/visualizations"),
            ("GET", asked.headers["location"]),
        ]:
            before_s = time.monotonic()
            refused(httpx.request(method, url + path, json=QUESTION, timeout=20), before_s)
        assert httpx.get(f"{url}/livez").status_code == 200
        with lone_valkey:
            assert httpx.get(url + asked.headers["location"]).json()["state"] == "queued"
            assert httpx.post(f"{url}/v1/visualizations", json=QUESTION).status_code == 202


def test_redis_killed_during_a_wait_ends_the_wait(lone_app: FastAPI, lone_valkey: EmbeddedValkey) -> None:
    with serving(lone_app) as url:
        location = httpx.post(f"{url}/v1/visualizations", json=QUESTION).headers["location"]
        with after(0.3, lone_valkey.close):
            before_s = time.monotonic()
            refused(httpx.get(f"{url}{location}", params={"wait": 60}, timeout=70), before_s)


def test_a_frozen_redis_costs_each_of_many_callers_no_more_than_one_timeout(
    lone_app: FastAPI, lone_valkey: EmbeddedValkey
) -> None:
    """Each paying its own timeout would take 300 callers / 40 threads x 2 s = 15 s."""
    with serving(lone_app) as url, patient(url) as client:
        assert client.get("/readyz").status_code == 200
        pid = server_pid(lone_valkey)
        os.kill(pid, signal.SIGSTOP)
        try:
            before_s = time.monotonic()
            answers = asyncio.run(many(url, "/v1/models", 300))
            assert time.monotonic() - before_s < 10.0
        finally:
            os.kill(pid, signal.SIGCONT)
        assert all(answer.startswith("HTTP/1.1 503") for answer in answers)
        assert all('"redis_unavailable"' in answer for answer in answers)
        time.sleep(1.1)  # As `Retry-After` says.
        assert client.get("/readyz").status_code == 200


def server_pid(valkey: EmbeddedValkey) -> int:
    with connect(valkey.url) as redis:
        found = redis.info("server")
    assert isinstance(found, dict)
    return int(found["process_id"])


def test_a_picture_is_delivered_while_redis_is_gone(
    lone_app: FastAPI, lone_valkey: EmbeddedValkey, info: ModelInfo
) -> None:
    http = Http(lone_app)
    job_id = str(http.ask(json=QUESTION).json()["id"])
    store: Store = lone_app.state.backend.store
    with connect(lone_valkey.url) as redis:
        Player(redis, store, info).succeed(job_id)
    lone_valkey.close()
    assert http.get(f"/v1/visualizations/{job_id}/images/0").content == PNG


def test_redis_that_refuses_to_write_is_a_problem_of_redis(served: Http, redis: redis_client.Redis) -> None:
    redis.config_set("maxmemory", 1)
    try:
        response = served.ask(json=QUESTION)
    finally:
        redis.config_set("maxmemory", 0)
    assert (response.status_code, response.json()["code"]) == (503, "queue_memory_full")
