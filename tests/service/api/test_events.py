"""Events over HTTP: a real server, real scripts, and Redis that goes away."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import redis as redis_client
from fastapi import FastAPI

from service import descriptors
from service.api import jobs
from service.app import create_app
from service.backend import event_hub, event_stream
from service.settings import ServiceSettings
from service.stack.valkey import EmbeddedValkey
from tests.service.api.test_visualizations import QUESTION, asked, problem_of
from tests.service.backend.test_backend import lone_app, lone_valkey  # noqa: F401 - fixtures
from tests.service.conftest import Http, Player
from tests.support.eventually import until
from tests.support.http_server import serving
from workers.broker.connection import connect
from workers.broker.keys import EVENTS_PREFIX, events_key
from workers.queue.fair_queue import FairQueue
from workers.queue.leases import Leases, Run

STAMP = "2026-01-01T00:00:00.000000Z"


class Told(list[tuple[str, str | None, dict[str, Any]]]):
    """What a listener heard: kind, id and data of each event."""

    @property
    def states(self) -> list[str]:
        return [data["state"] for kind, _, data in self if kind == "state"]


def heard(url: str, begun: threading.Event | None = None, **request: Any) -> Told:
    """Listen to the end."""
    told, fields = Told(), dict[str, str]()
    with httpx.stream("GET", url, timeout=30, **request) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if begun is not None:
                begun.set()
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "event" in fields:
                told.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
                fields = {}
            else:
                fields = {}
    return told


@contextmanager
def listening(url: str, **request: Any) -> Iterator[Any]:
    """A listener that has begun; what it heard to the end is its result."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        hears = pool.submit(heard, url, begun, **request)
        assert begun.wait(30)
        yield hears


class Slot:
    """A job in the hands of a run, by the scripts that a worker uses."""

    def __init__(self, redis: redis_client.Redis) -> None:
        self.leases = Leases(redis)
        (job_id,) = FairQueue(redis).pop(["digits"], 1)
        self.run = Run(job_id, "e1")
        self.leases.take(self.run, slot="host.0", worker="host")

    def step(self, step: int) -> bool:
        return self.leases.write(self.run, {"step": step, "activation": step / 2})

    def cancel(self, redis: redis_client.Redis) -> None:
        redis.hset(f"proxygrad:job:{self.run.job_id}", "cancel_requested", "1")
        self.leases.close(self.run, "canceled", slot="host.0")


def test_a_listener_hears_all_of_it_and_is_let_go(
    served: Http, app: FastAPI, redis: redis_client.Redis
) -> None:
    job_id = asked(served)
    with serving(app) as url, listening(f"{url}/v1/visualizations/{job_id}/events") as hears:
        slot = Slot(redis)
        for step in (3, 4):
            assert slot.step(step)  # somebody watches
            time.sleep(0.5)  # each is heard before the next
        slot.leases.show(slot.run, 4, b"png")
        time.sleep(0.5)
        slot.cancel(redis)
        told = hears.result(30)
    assert told.states == ["queued", "running", "canceled"]
    kinds = [kind for kind, _, _ in told]
    assert kinds == ["state", "state", "progress", "progress", "preview", "state"]
    assert told[3][2] == {"step": 4, "steps": 128, "activation": 2.0}
    assert (told[4][1], told[4][2]["data"]) == (None, "cG5n")
    numbers = [tuple(map(int, event_id.split("-"))) for _, event_id, _ in told if event_id]
    assert numbers == sorted(set(numbers))


def test_it_is_a_stream_that_nobody_keeps(served: Http, app: FastAPI, player: Player) -> None:
    job_id = asked(served)
    player.succeed(job_id)
    with serving(app) as url:
        response = httpx.get(f"{url}/v1/visualizations/{job_id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "no-cache" in response.headers["cache-control"]
    assert response.headers["x-accel-buffering"] == "no"
    assert response.text.startswith("retry: 2000\n\n")


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_finished_one_says_so_once(
    served: Http, player: Player, redis: redis_client.Redis, forgotten: bool
) -> None:
    job_id = asked(served)
    player.succeed(job_id)
    if forgotten:
        player.forget(job_id)
        redis.delete(events_key(job_id))
    path = f"/v1/visualizations/{job_id}/events"
    response = served.get(path)
    assert response.status_code == 200
    assert response.text.count("event: ") == 1
    assert '"state":"succeeded"' in response.text
    last = next(line[4:] for line in response.text.splitlines() if line.startswith("id: "))
    assert served.get(path, headers={"Last-Event-ID": last}).status_code == 204
    assert served.get(path, params={"last_event_id": last}).status_code == 204


def test_a_listener_goes_on_where_it_was_cut_off(
    served: Http, app: FastAPI, redis: redis_client.Redis
) -> None:
    job_id = asked(served)
    with serving(app) as url, httpx.stream("GET", f"{url}/v1/visualizations/{job_id}/events") as response:
        last = next(line[4:] for line in response.iter_lines() if line.startswith("id: "))
    slot = Slot(redis)
    for step in range(1, 9):
        slot.step(step)
    path = f"/v1/visualizations/{job_id}/events"
    with serving(app) as url, listening(url + path, headers={"Last-Event-ID": last}) as hears:
        slot.cancel(redis)
        told = hears.result(30)
    assert told.states == ["running", "canceled"]
    assert [data["step"] for kind, _, data in told if kind == "progress"] == [8]  # older progress is no news


def test_who_missed_what_the_stream_lost_is_told_how_it_stands(
    served: Http, app: FastAPI, redis: redis_client.Redis
) -> None:
    job_id = asked(served)
    slot = Slot(redis)
    for step in range(500):
        slot.step(step)
    path = f"/v1/visualizations/{job_id}/events"
    with serving(app) as url, listening(url + path, headers={"Last-Event-ID": "1-0"}) as hears:
        slot.cancel(redis)
        assert hears.result(30).states == ["running", "canceled"]


def test_nothing_is_told_of_what_there_is_not(served: Http) -> None:
    problem_of(served.get(f"/v1/visualizations/{'0' * 32}/events"), 404, "unknown_visualization")
    job_id = asked(served)
    for request, where in [
        ({"headers": {"Last-Event-ID": "x"}}, ["header", "last-event-id"]),
        ({"params": {"last_event_id": "5"}}, ["query", "last_event_id"]),
        ({"params": {"last_event_id": "١-١"}}, ["query", "last_event_id"]),
        ({"headers": {"Last-Event-ID": f"{2**64}-0"}}, ["header", "last-event-id"]),
        ({"headers": {"Last-Event-ID": f"{2**64 - 1}-{2**64 - 1}"}}, ["header", "last-event-id"]),
    ]:
        found = problem_of(
            served.get(f"/v1/visualizations/{job_id}/events", **request), 422, "invalid_request"
        )
        assert found["errors"][0]["location"] == where


def test_a_quiet_stream_is_kept_open_by_comments(
    served: Http, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.05)
    job_id = asked(served)
    path = f"/v1/visualizations/{job_id}/events"
    with serving(app) as url, httpx.stream("GET", url + path, timeout=10) as response:
        comments = (line for line in response.iter_lines() if line.startswith(":"))
        assert [next(comments) for _ in range(5)] == [": nothing new"] * 5


def test_closing_lets_listeners_go(served: Http, app: FastAPI) -> None:
    job_id = asked(served)
    with serving(app) as url, listening(f"{url}/v1/visualizations/{job_id}/events") as hears:
        app.state.backend.close()
        assert hears.result(30).states == ["queued"]


def test_many_listeners_are_one_connection(served: Http, app: FastAPI, redis: redis_client.Redis) -> None:
    ids = [asked(served, unit=unit) for unit in range(10)]

    def subscribers() -> int:
        return sum(int(client["sub"]) > 0 for client in redis.client_list())

    with serving(app) as url, ThreadPoolExecutor(40) as pool:
        paths = [f"{url}/v1/visualizations/{job_id}/events" for job_id in ids] * 3
        hear = [pool.submit(heard, path) for path in paths]
        until(lambda: len(redis.pubsub_channels(EVENTS_PREFIX + "*")) == 10)
        assert subscribers() == 1
        for job_id in ids:
            served("POST", f"/v1/visualizations/{job_id}/cancel")
        assert {tuple(each.result(30).states) for each in hear} <= {("queued", "canceled"), ("canceled",)}
        until(lambda: redis.pubsub_channels(EVENTS_PREFIX + "*") == [])


def test_a_listener_outlives_a_restart_of_redis(
    lone_app: FastAPI,  # noqa: F811
    lone_valkey: EmbeddedValkey,  # noqa: F811
) -> None:
    with serving(lone_app) as url:
        location = httpx.post(f"{url}/v1/visualizations", json=QUESTION).headers["location"]
        with listening(f"{url}{location}/events") as hears:
            lone_valkey.close()
            time.sleep(0.5)
            with lone_valkey, connect(lone_valkey.url) as redis:
                slot = Slot(redis)
                time.sleep(1.0)
                slot.cancel(redis)
                assert hears.result(30).states == ["queued", "running", "canceled"]


@pytest.mark.parametrize("pause_s", [0, 3 * event_hub.RETRY_S])  # it ends before the reader is back, or after
def test_what_happened_while_the_connection_was_broken_is_told_once(
    served: Http, app: FastAPI, redis: redis_client.Redis, pause_s: float
) -> None:
    job_id = asked(served)
    with serving(app) as url, listening(f"{url}/v1/visualizations/{job_id}/events") as hears:
        slot = Slot(redis)
        redis.client_kill_filter(_type="pubsub")
        slot.step(5)
        time.sleep(pause_s)
        slot.cancel(redis)
        told = hears.result(30)
    assert told.states == ["queued", "running", "canceled"]


def test_one_who_does_not_read_holds_a_handful_of_events(
    served: Http, settings: ServiceSettings, redis: redis_client.Redis
) -> None:
    job_id = asked(served)
    slot = Slot(redis)

    async def follow() -> list[str]:
        backend = create_app(settings).state.backend
        subscription = await backend.events.follow(job_id, jobs.EVENT_KINDS)
        for step in range(300):
            slot.step(step)
            slot.leases.show(slot.run, step, b"png")
        slot.cancel(redis)
        for _ in range(1500):  # half a minute at most
            if any(getattr(each, "final", False) for each in subscription._waiting):
                break
            await asyncio.sleep(0.02)
        assert len(subscription._waiting) <= 4
        found = [await subscription.next(0.1) for _ in range(len(subscription._waiting))]
        subscription.close()
        backend.events.close()
        await asyncio.sleep(0)
        return [f"{each.kind} {json.loads(each.data).get('step', '')}" for each in found]

    found = asyncio.run(follow())
    assert found == ["progress 299", "preview 299", "state "]


def test_a_silent_redis_is_given_up(
    served: Http, settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_hub, "PING_S", 60.0)
    monkeypatch.setattr(event_hub, "SILENCE_S", 0.2)
    job_id = asked(served)

    async def follow() -> Any:
        backend = create_app(settings).state.backend
        subscription = await backend.events.follow(job_id, jobs.EVENT_KINDS)
        try:
            return await subscription.next(30)
        finally:
            subscription.close()

    assert asyncio.run(follow()) == event_hub.MISSED


def test_a_stream_of_a_job_that_redis_lost_ends_and_says_so(
    app: FastAPI, served: Http, redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.05)
    job_id = asked(served)
    with serving(app) as url, listening(f"{url}/v1/visualizations/{job_id}/events") as told:
        redis.flushall()
        (_, _, first), (kind, _, last) = told.result(30)
    assert (first["state"], kind, last["state"]) == ("queued", "state", "failed")
    assert last["problem"]["code"] == "unknown_visualization"
    assert "request it again" in last["problem"]["detail"]


def test_a_caller_has_so_many_streams_and_long_waits(
    served: Http, settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "max_followers", lambda: 2)
    path = f"/v1/visualizations/{asked(served)}"
    with (
        serving(create_app(settings)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        client.stream("GET", f"{path}/events"),
        client.stream("GET", f"{path}/events"),
    ):
        refused = client.get(f"{path}/events")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert refused.headers["retry-after"] == "5"
        # A long wait gets its answer, only earlier: its client asks again.
        begun_s = time.monotonic()
        waited = client.get(f"{path}?wait=60")
        assert (waited.status_code, waited.json()["state"]) == (200, "queued")
        assert 0.9 < time.monotonic() - begun_s < 30
