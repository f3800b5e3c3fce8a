"""What the store answers for: whether all of it is there, and who asked for it."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.support.artifacts import IMAGE, answered, job_id
from tests.support.job_calls import requester
from workers.broker.keys import deletion_lock_key
from workers.broker.pipeline import run_blocking
from workers.jobs import results as answers
from workers.jobs.kinds.visualization import image_path
from workers.jobs.queries import Requester
from workers.jobs.repository import Jobs
from workers.jobs.results import StoredResults
from workers.storage.paths import result_path
from workers.storage.store import Store


@pytest.fixture
def kept(redis: Redis, store: Store) -> StoredResults:
    """Of the answer to unit 0, whose files are there."""
    store.put(image_path(job_id(0), 0), bytes(IMAGE.size_bytes))
    store.put(result_path(job_id(0)), answered(0).model_dump_json().encode())
    return StoredResults(redis, store)


def test_an_answer_is_read_as_it_was_written(kept: StoredResults, store: Store) -> None:
    assert kept.stored(job_id(0)) == answered(0)
    assert kept.stored(job_id(1)) is None


@pytest.mark.parametrize("path", [image_path(job_id(0), 0), result_path(job_id(0))])
def test_that_a_file_is_gone_is_seen_when_it_is_looked_for_again(
    kept: StoredResults, store: Store, redis: Redis, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = answered(0)
    assert run_blocking(kept.is_complete(job), redis)
    store.delete(path)
    assert run_blocking(kept.is_complete(job), redis), "of the same answer it was seen a moment ago"
    assert not run_blocking(kept.is_complete(answered(0)), redis), "of another nothing is known"
    monkeypatch.setattr(answers, "COMPLETE_S", 0.0)
    store.put(path, bytes(IMAGE.size_bytes))
    again = answered(0)
    assert run_blocking(kept.is_complete(again), redis)
    store.delete(path)
    assert not run_blocking(kept.is_complete(again), redis)


def test_who_asks_is_noted_where_the_answer_stays(kept: StoredResults, jobs: Jobs, redis: Redis) -> None:
    assert kept.pin(job_id(0), "me") == (answered(0), True)
    assert kept.pin(job_id(1), "me") == (None, False)
    assert requester(jobs, job_id(0), "me") == Requester()
    assert requester(jobs, job_id(1), "me") is None
    redis.set(deletion_lock_key(job_id(0)), "token")
    assert kept.pin(job_id(0), "you") == (answered(0), False)
    assert requester(jobs, job_id(0), "you") is None
