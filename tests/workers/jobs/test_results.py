"""What the store answers for: whether all of it is there, and who asked for it."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.support.artifacts import IMAGE, answered, job_id
from workers.broker.pipeline import run_blocking
from workers.jobs import results as answers
from workers.jobs.askers import Requester
from workers.jobs.repository import Jobs
from workers.jobs.results import Answers, image_path, result_path
from workers.storage.pins import claim_key
from workers.storage.store import Store


@pytest.fixture
def kept(redis: Redis, store: Store) -> Answers:
    """Of the answer to unit 0, whose files are there."""
    store.put(image_path(job_id(0), 0), bytes(IMAGE.size_bytes))
    store.put(result_path(job_id(0)), answered(0).model_dump_json().encode())
    return Answers(redis, store)


def test_an_answer_is_read_as_it_was_written(kept: Answers, store: Store) -> None:
    assert kept.stored(job_id(0)) == answered(0)
    assert kept.stored(job_id(1)) is None


@pytest.mark.parametrize("path", [image_path(job_id(0), 0), result_path(job_id(0))])
def test_that_a_file_is_gone_is_seen_when_it_is_looked_for_again(
    kept: Answers, store: Store, redis: Redis, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = answered(0)
    assert run_blocking(kept.seems_whole(job), redis)
    store.delete(path)
    assert not kept.whole(job)
    assert run_blocking(kept.seems_whole(job), redis), "of the same answer it was seen a moment ago"
    assert not run_blocking(kept.seems_whole(answered(0)), redis), "of another nothing is known"
    monkeypatch.setattr(answers, "WHOLE_S", 0.0)
    store.put(path, bytes(IMAGE.size_bytes))
    again = answered(0)
    assert run_blocking(kept.seems_whole(again), redis)
    store.delete(path)
    assert not run_blocking(kept.seems_whole(again), redis)


def test_who_asks_is_noted_where_the_answer_stays(kept: Answers, jobs: Jobs, redis: Redis) -> None:
    assert kept.promised(job_id(0), "me") == (answered(0), True)
    assert kept.promised(job_id(1), "me") == (None, False)
    assert jobs.asked(job_id(0), "me") == Requester()
    assert jobs.asked(job_id(1), "me") is None
    redis.set(claim_key(job_id(0)), "token")
    assert kept.promised(job_id(0), "you") == (answered(0), False)
    assert jobs.asked(job_id(0), "you") is None
