"""Connections to Redis: few, patient where that helps, and no error shows a password."""

from __future__ import annotations

import threading
import time
import traceback

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from workers.broker import connection
from workers.broker.connection import WORKER_RETRIES, check_url, connect, require_redis
from workers.errors import QueueUnavailable, SettingsError
from workers.jobs.repository import Jobs
from workers.settings import SharedSettings
from workers.storage.store import Store


def test_users_wait_for_each_other(redis_url: str) -> None:
    with connect(redis_url, connections=2) as client:
        threads = [threading.Thread(target=lambda: [client.incr("n") for _ in range(50)]) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.get("n") == b"1000"
        assert len(client.connection_pool._connections) == 2


def test_who_waits_in_vain_is_told_so(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.broker.connection.CONNECTION_WAIT_S", 0.1)
    with connect(redis_url, connections=1) as client:
        held = client.connection_pool.get_connection()
        with pytest.raises(RedisConnectionError, match="all 1 connections to Redis have been in use for 0 s"):
            client.ping()
        client.connection_pool.release(held)
        assert client.ping()


def test_other_troubles_keep_their_words(tmp_path: object) -> None:
    with (
        connect(f"unix://{tmp_path}/none.sock", connections=1, retries=0) as client,
        pytest.raises(RedisConnectionError, match=r"none\.sock"),
    ):
        client.ping()


@pytest.mark.engine
def test_a_process_has_four_however_many_slots_are_at_work(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    pytest.importorskip("torch", reason="slots run the task, which needs torch")
    from tests.support.counting_engine import CountingEngine
    from tests.support.eventually import ended
    from tests.support.worker_in_process import working
    from workers.process.main import commands_to, listening_to

    ids = [submit(jobs, question(unit, steps=20), MODEL)[0].id for unit in range(200)]
    before, most = {each["id"] for each in redis.client_list()}, 0
    with (
        commands_to(redis_url) as commands,
        listening_to(redis_url) as listening,
        working(commands, store, CountingEngine(step_s=0.005), slots=32, listening=listening),
    ):
        while redis.llen("rq:queue:proxygrad"):
            most = max(most, len({each["id"] for each in redis.client_list()} - before))
            time.sleep(0.01)
        assert {ended(jobs, job_id).state for job_id in ids} == {"succeeded"}
    assert most == connection.WORKER_CONNECTIONS + 1 == 4


def test_a_missing_redis_is_one_line_with_its_url() -> None:
    with pytest.raises(QueueUnavailable) as caught:
        require_redis("redis://me:secret@127.0.0.1:1/0")
    said = str(caught.value)
    assert said.startswith("no Redis answers at redis://me:***@127.0.0.1:1/0: ")
    assert "refused" in said
    assert "secret" not in said
    assert "\n" not in said


def test_a_redis_that_is_there_is_enough(redis_url: str) -> None:
    require_redis(redis_url)


def test_a_gateway_can_ask_for_an_answer_at_once() -> None:
    with connect("redis://127.0.0.1:1/0", retries=0) as client:
        retry = client.get_retry()
        with pytest.raises(RedisConnectionError):
            client.ping()
    assert retry is not None
    assert retry.get_retries() == 0


def test_a_worker_is_patient() -> None:
    with connect("redis://127.0.0.1:1/0") as client:
        retry = client.get_retry()
    assert retry is not None
    assert retry.get_retries() == WORKER_RETRIES


def test_an_url_redis_cannot_read_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"REDIS_URL is 'redis://\*\*\*'; valid: redis://host:port/0"):
        connect("redis://host:port/0")


@pytest.mark.parametrize("url", ["redis://:S3/CRET@host:6379/0", "redis://u:S3[CRET@h:1", "redis://:S3CRET"])
def test_no_error_shows_the_password_of_an_url_that_is_none(url: str) -> None:
    """Neither the URL nor what its parser says, nor a traceback."""
    said = []
    for use in (
        lambda: connect(url),
        lambda: check_url(url),
        lambda: SharedSettings.from_env({"REDIS_URL": url}),
    ):
        with pytest.raises((SettingsError, ValueError)) as refused:
            use()
        said += traceback.format_exception(refused.value, chain=True)
    text = "".join(each for each in said if "test_connection.py" not in each)
    assert "percent-encoded" in text
    assert "S3" not in text
    assert "CRET" not in text
