"""The index of jobs by when they were created keeps no entry for ever that has no record."""

from __future__ import annotations

from redis import Redis

from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from workers.broker.keys import JOBS_KEY, job_key
from workers.broker.time_index import IndexEntry, older
from workers.jobs.repository import Job, Jobs
from workers.queue.janitor import Janitor


def everything(job: Job) -> bool:
    return True


def test_a_job_that_is_asked_anew_is_the_newest(jobs: Jobs) -> None:
    first, _ = submit(jobs, question(1), MODEL)
    second, _ = submit(jobs, question(2), MODEL)
    jobs.cancel(first.id)
    submit(jobs, question(1), MODEL)
    found, further = jobs.recent(None, 10, 100, everything)
    assert ([job.id for job in found], further) == ([first.id, second.id], None)


def test_the_oldest_entry_without_a_record_goes_with_each_new_job(redis: Redis, jobs: Jobs) -> None:
    old = [submit(jobs, question(unit), MODEL)[0].id for unit in range(3)]
    redis.delete(*(job_key(job_id) for job_id in old))
    for unit in range(3, 6):
        submit(jobs, question(unit), MODEL)
    assert redis.zcard(JOBS_KEY) == 3


def test_of_equal_times_none_is_passed_over_or_met_twice_whatever_comes_and_goes(redis: Redis) -> None:
    names = [f"{number:03}" for number in range(450)]
    redis.zadd("index", {name: float(int(name) // 150) for name in names})
    assert [entry.job_id for entry in older(redis, "index", None)] == names[::-1]
    assert [entry.job_id for entry in older(redis, "index", IndexEntry(1.0, "200"))] == names[:200][::-1]
    met = []
    for number, entry in enumerate(older(redis, "index", None)):
        met.append(entry.job_id)
        redis.zadd("index", {f"new-{number}": 9.0})
        redis.zrem("index", entry.job_id)
    assert met == names[::-1]


def test_janitors_find_every_entry_without_a_record(redis: Redis, jobs: Jobs) -> None:
    waits, _ = submit(jobs, question(), MODEL)  # the oldest, so that no new job drops what is behind it
    redis.zadd(JOBS_KEY, {f"{number:032x}": 2e9 + number for number in range(5000)})
    janitor = Janitor(redis)
    for _ in range(12):
        janitor.tidy()
    assert redis.zrange(JOBS_KEY, 0, -1) == [waits.id.encode()]


def test_one_that_is_asked_for_while_it_is_dropped_is_kept(redis: Redis, jobs: Jobs) -> None:
    """The entry is looked at again in the step that drops it."""
    job, _ = submit(jobs, question(), MODEL)
    jobs._index._drop(JOBS_KEY, job.id)
    assert redis.zcard(JOBS_KEY) == 1
