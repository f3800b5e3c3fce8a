"""Other hands at RQ's list: nothing is lost by it, counted twice, or run that should not be."""

from __future__ import annotations

from typing import cast

from redis import Redis
from rq import Queue as RQQueue
from rq.job import Job as RQJob

from proxygrad.protocol.problems import Problem
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.queue_invariants import faults
from tests.support.slot_steps import pop, record, started, take, waiting
from tests.support.waiting_jobs import Queue, job_id
from workers.broker import keys, rq_names
from workers.jobs.repository import Jobs
from workers.queue import rq_entries
from workers.queue.fair_queue import FairQueue
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Run


def rq_queue(redis: Redis) -> RQQueue:
    return RQQueue(rq_names.QUEUE_NAME, connection=redis, serializer=rq_entries.SERIALIZER)


def entry(redis: Redis, name: str) -> RQJob:
    return RQJob.fetch(name, connection=redis, serializer=rq_entries.SERIALIZER)


def failed(redis: Redis, jobs: Jobs, leases: Leases) -> Run:
    run = started(redis, jobs, leases)
    problem = Problem(code="lane_failed", detail="nan").model_dump_json()
    leases.close(run, "failed", fields={"problem": problem}, slot="s")
    return run


def test_what_agrees_is_left_alone(redis: Redis, janitor: Janitor) -> None:
    waiting_jobs = Queue(redis)
    for number in range(20):
        waiting_jobs.ask("ab"[number % 2], model=f"m{number % 3}")
    redis.delete("proxygrad:sweeps")
    before = {key: redis.dump(key) for key in cast(list[bytes], redis.keys())}
    janitor.tidy()
    assert {key: redis.dump(key) for key in cast(list[bytes], redis.keys())} == before


def test_requeued_with_rq_it_runs_again(redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor) -> None:
    run = failed(redis, jobs, leases)
    entry(redis, run.job_id).requeue()
    assert FairQueue(redis).pop(None, 1) == []
    assert janitor.sweep() == {run.job_id: "queued"}
    job = record(jobs, run)
    assert (job.state, job.problem, job.losses, job.finished_at) == ("queued", None, 0, None)
    assert redis.ttl(keys.job_key(run.job_id)) == -1
    assert faults(redis) == []
    assert take(leases, Run(pop(redis), "e2")) == "taken"


def test_emptied_with_rq_the_jobs_are_canceled(redis: Redis, jobs: Jobs, janitor: Janitor) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(3)]
    rq_queue(redis).empty()  # type: ignore[no-untyped-call]
    assert janitor.sweep() == dict.fromkeys(ids, "dropped")
    for name in ids:
        job = jobs.fetch(name)
        assert job is not None
        assert job.state == "canceled"
        assert job.problem is not None
        assert job.problem.code == "removed"
    assert faults(redis) == []
    assert submit(jobs, question(0), MODEL)[1]


def test_canceled_with_rq_it_is_canceled(redis: Redis, jobs: Jobs, janitor: Janitor) -> None:
    job, _ = submit(jobs, question(), MODEL)
    entry(redis, job.id).cancel()
    assert janitor.sweep() == {job.id: "dropped"}
    after = jobs.fetch(job.id)
    assert after is not None
    assert after.state == "canceled"
    assert redis.zcard(rq_names.CANCELED_KEY) == 1
    assert faults(redis) == []


def test_taken_from_its_worker_by_rqs_cleanup_it_has_lost_it(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    run = started(redis, jobs, leases)
    redis.zadd(rq_names.LEASES_KEY, {run.member: 1})
    assert rq_queue(redis).started_job_registry.count == 0  # what `rq info` does
    assert janitor.sweep() == {run.job_id: "queued"}
    assert (record(jobs, run).state, record(jobs, run).losses) == ("queued", 1)
    assert waiting(redis) == [run.job_id]
    assert not leases.beat(run)
    assert faults(redis) == []


def test_a_job_that_runs_is_not_queued_beside(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    run = started(redis, jobs, leases)
    rq_queue(redis).push_job_id(run.job_id)
    redis.hset(rq_names.entry_key(run.job_id), "status", "queued")
    assert janitor.sweep() == {run.job_id: "dropped"}
    assert leases.close(run, "succeeded", slot="s") == "closed"
    assert faults(redis) == []


def test_entries_that_are_none_of_ours_fail_and_are_never_run(redis: Redis, janitor: Janitor) -> None:
    rq_queue(redis).enqueue("os.getcwd", job_id="theirs")
    rq_queue(redis).push_job_id("nothing")
    janitor.sweep()
    assert FairQueue(redis).pop(None, 5) == []
    assert waiting(redis) == []
    assert entry(redis, "theirs").is_failed
    assert redis.keys("proxygrad:job:*") == []


def test_what_left_the_list_alone_is_put_back(redis: Redis, janitor: Janitor) -> None:
    Queue(redis).ask("a")
    redis.lrem(rq_names.QUEUE_KEY, 0, job_id(0))
    assert janitor.sweep() == {job_id(0): "queued"}
    assert waiting(redis) == [job_id(0)]
    assert faults(redis) == []


def test_listed_twice_it_is_listed_once(redis: Redis, janitor: Janitor) -> None:
    waiting_jobs = Queue(redis)
    numbers = [waiting_jobs.ask("a") for _ in range(3)]
    redis.rpush(rq_names.QUEUE_KEY, job_id(1))
    janitor.sweep()
    assert sorted(waiting(redis)) == [job_id(number) for number in numbers]
    assert faults(redis) == []


def test_a_difference_that_lengths_do_not_show_is_found_by_the_tidy(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    run = failed(redis, jobs, leases)
    job, _ = submit(jobs, question(1), MODEL)
    entry(redis, run.job_id).requeue()
    entry(redis, job.id).delete()
    janitor.tidy()
    assert waiting(redis) == [run.job_id]
    assert faults(redis) == []


def test_more_than_one_round_takes_are_put_right_in_several(redis: Redis, janitor: Janitor) -> None:
    waiting_jobs = Queue(redis)
    for _ in range(250):
        waiting_jobs.ask("a")
    rq_queue(redis).empty()  # type: ignore[no-untyped-call]
    assert [len(janitor.sweep()) for _ in range(4)] == [100, 100, 50, 0]
    assert faults(redis) == []


def test_jobs_of_an_earlier_version_are_taken_on(redis: Redis, jobs: Jobs, janitor: Janitor) -> None:
    """As version 0.1 wrote them: in RQ's list, with a record that says nothing of turns."""
    job, _ = submit(jobs, question(), MODEL)
    kept = {b"spec", b"steps", b"state", b"step", b"losses", b"created_at"}
    fields = cast(dict[bytes, bytes], redis.hgetall(keys.job_key(job.id)))
    redis.hdel(keys.job_key(job.id), *(fields.keys() - kept))
    redis.delete(*cast(list[bytes], [key for key in redis.keys("proxygrad:*") if b":job:" not in key]))
    assert janitor.sweep() == {job.id: "queued"}
    assert faults(redis) == []
    assert pop(redis) == job.id


def test_a_record_that_vanished_leaves_nothing_behind(redis: Redis, jobs: Jobs, janitor: Janitor) -> None:
    job, _ = submit(jobs, question(), MODEL, caller="a")
    redis.delete(keys.job_key(job.id), rq_names.entry_key(job.id), rq_names.QUEUE_KEY)
    janitor.tidy()
    assert faults(redis) == []
    assert redis.keys("proxygrad:waiting*") == redis.keys("proxygrad:ready*") == []


def test_flows_that_owe_nothing_are_forgotten(redis: Redis, janitor: Janitor) -> None:
    waiting_jobs = Queue(redis)
    waiting_jobs.ask("once", cost=1.0)
    for _ in range(5):
        waiting_jobs.ask("often", cost=1.0)
    waiting_jobs.pop(4)
    janitor.tidy()
    flows = cast(dict[bytes, bytes], redis.hgetall("proxygrad:flows:interactive"))
    assert set(flows) == {b"f:often", b"n:often", b"s:often"}
