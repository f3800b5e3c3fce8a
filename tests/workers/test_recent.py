"""The index of jobs by when they were created keeps no entry for ever that has no record."""

from __future__ import annotations

from redis import Redis

from tests.workers.questions import MODEL, question
from workers.jobs import Job, Jobs
from workers.queue import JOBS_KEY, job_key
from workers.recovery import Janitor


def everything(job: Job) -> bool:
    return True


def test_a_job_that_is_asked_anew_is_the_newest(jobs: Jobs) -> None:
    first, _ = jobs.submit(question(1), MODEL)
    second, _ = jobs.submit(question(2), MODEL)
    jobs.cancel(first.id)
    jobs.submit(question(1), MODEL)
    found, further = jobs.recent(None, 10, 100, everything)
    assert ([job.id for job in found], further) == ([first.id, second.id], None)


def test_the_oldest_entry_without_a_record_goes_with_each_new_job(redis: Redis, jobs: Jobs) -> None:
    old = [jobs.submit(question(unit), MODEL)[0].id for unit in range(3)]
    redis.delete(*(job_key(job_id) for job_id in old))
    for unit in range(3, 6):
        jobs.submit(question(unit), MODEL)
    assert redis.zcard(JOBS_KEY) == 3


def test_janitors_find_every_entry_without_a_record(redis: Redis, jobs: Jobs) -> None:
    waits, _ = jobs.submit(question(), MODEL)  # the oldest, so that no new job drops what is behind it
    redis.zadd(JOBS_KEY, {f"{number:032x}": 2e9 + number for number in range(5000)})
    janitor = Janitor(redis)
    for _ in range(12):
        janitor.tidy()
    assert redis.zrange(JOBS_KEY, 0, -1) == [waits.id.encode()]


def test_one_that_is_asked_for_while_it_is_dropped_is_kept(redis: Redis, jobs: Jobs) -> None:
    """The entry is looked at again in the step that drops it."""
    job, _ = jobs.submit(question(), MODEL)
    jobs._recent._drop(job.id)
    assert redis.zcard(JOBS_KEY) == 1
