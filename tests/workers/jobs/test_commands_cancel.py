"""Nobody wants it any more: waiting, popped, running, ended, and wanted again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest
from redis import Redis
from rq.job import Job as RQJob

from proxygrad.protocol.requests import VisualizationRequest
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, record, started, take, waiting
from workers.broker import keys, limits, rq_names
from workers.broker.connection import connect
from workers.errors import QueueLimitReached
from workers.jobs.repository import CheckpointReference, Jobs, Limits
from workers.queue import rq_entries
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Run
from workers.storage.store import Store


def expire(redis: Redis, run: Run) -> None:
    redis.zadd(rq_names.LEASES_KEY, {run.member: 1})


def test_a_waiting_job_is_canceled_at_once(redis: Redis, jobs: Jobs) -> None:
    job, _ = submit(jobs, VisualizationRequest.of(question()).model_copy(update={"deadline_s": 9.0}), MODEL)
    canceled = jobs.cancel(job.id)
    assert canceled is not None
    assert (canceled.state, canceled.problem) == ("canceled", None)
    assert canceled.finished_at is not None
    assert canceled == jobs.fetch(job.id) == jobs.cancel(job.id)
    entry = RQJob.fetch(job.id, connection=redis, serializer=rq_entries.SERIALIZER)
    assert entry.is_canceled
    assert [entry.id] == [
        name.decode() for name in cast(list[bytes], redis.zrange(rq_names.CANCELED_KEY, 0, -1))
    ]
    assert waiting(redis) == []
    assert redis.keys("proxygrad:ready*") == redis.keys("proxygrad:waiting*") == []
    assert redis.exists("proxygrad:deadlines") == 0
    assert limits.FINISHED_TTL_S - 60 < redis.ttl(keys.job_key(job.id)) <= limits.FINISHED_TTL_S


def test_a_popped_job_is_canceled_before_it_is_taken(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    submit(jobs, question(), MODEL)
    run = Run(pop(redis), "e1")
    jobs.cancel(run.job_id)
    assert take(leases, run) == "elsewhere"
    assert record(jobs, run).state == "canceled"
    assert redis.llen(rq_names.INTERMEDIATE_KEY) == 0


def test_the_run_of_a_job_is_asked_to_stop_and_cancels_it(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    with redis.pubsub(ignore_subscribe_messages=True) as listening:  # type: ignore[no-untyped-call]
        listening.subscribe(keys.CANCEL_CHANNEL)
        listening.get_message(timeout=10)
        asked = jobs.cancel(run.job_id)
        message = listening.get_message(timeout=10)
    assert asked is not None
    assert (asked.state, asked.cancel_requested is not None) == ("running", True)
    assert message is not None
    assert message["data"] == run.job_id.encode()
    assert leases.beat(run).cancel
    assert leases.close(run, "canceled", slot="s") == "closed"
    assert (record(jobs, run).state, record(jobs, run).cancel_requested) == ("canceled", None)
    assert redis.zscore(rq_names.CANCELED_KEY, run.job_id) is not None


def test_a_run_that_ends_well_first_has_succeeded(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    jobs.cancel(run.job_id)
    assert leases.close(run, "succeeded", slot="s") == "closed"
    assert record(jobs, run).state == "succeeded"
    after = jobs.cancel(run.job_id)
    assert after is not None
    assert after.state == "succeeded"


def test_asked_again_before_it_stopped_it_goes_on(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    leases.write(run, {"checkpoint": CheckpointReference(step=3, path="x").model_dump_json(), "step": 3})
    jobs.cancel(run.job_id)
    submit(jobs, question(), MODEL)
    assert not leases.beat(run).cancel
    assert leases.close(run, "canceled", slot="s") == "queued"  # it had stopped already
    job = record(jobs, run)
    assert (job.state, job.step, job.checkpoint) == ("queued", 3, CheckpointReference(step=3, path="x"))
    assert waiting(redis) == [run.job_id]


@pytest.mark.parametrize("leaving", ["lost", "given back"])
def test_a_job_whose_run_left_before_it_stopped_is_canceled(
    redis: Redis, jobs: Jobs, leases: Leases, leaving: str
) -> None:
    run = started(redis, jobs, leases)
    jobs.cancel(run.job_id)
    if leaving == "lost":
        expire(redis, run)
        assert Janitor(redis).sweep() == {run.job_id: "canceled"}
    else:
        assert leases.give_back(run)
    assert record(jobs, run).state == "canceled"
    assert waiting(redis) == []
    assert redis.zcard(rq_names.LEASES_KEY) == 0


def test_nothing_is_canceled_of_what_is_not_there(redis: Redis, jobs: Jobs) -> None:
    assert jobs.cancel("0" * 32) is None
    assert redis.keys() == []


# -- again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["failed", "canceled"])
def test_what_failed_or_was_canceled_is_queued_again(
    redis: Redis, jobs: Jobs, leases: Leases, end: str
) -> None:
    run = started(redis, jobs, leases)
    if end == "failed":
        problem = '{"code": "lane_failed", "detail": "nan"}'
        leases.close(run, "failed", fields={"problem": problem}, slot="s")
    else:
        jobs.cancel(run.job_id)
        leases.close(run, "canceled", slot="s")
    answer = jobs.retry(run.job_id)
    assert answer is not None
    job, queued = answer
    assert queued
    assert (job.state, job.problem, job.losses, job.spec) == ("queued", None, 0, question().resolve(MODEL))
    assert waiting(redis) == [run.job_id]
    assert redis.zcard(rq_names.FAILED_KEY) + redis.zcard(rq_names.CANCELED_KEY) == 0
    assert redis.ttl(keys.job_key(job.id)) == -1
    assert pop(redis) == run.job_id


def test_any_other_state_is_left_alone(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    job, _ = submit(jobs, question(), MODEL)
    assert jobs.retry(job.id) == (job, False)
    run = Run(pop(redis), "e1")
    take(leases, run)
    jobs.cancel(job.id)
    assert jobs.retry(job.id) == (record(jobs, run), False)
    assert record(jobs, run).cancel_requested is not None
    leases.close(run, "succeeded", slot="s")
    assert jobs.retry(job.id) == (record(jobs, run), False)
    assert jobs.retry("0" * 32) is None
    assert waiting(redis) == []


def test_a_full_queue_takes_nothing_again(jobs: Jobs) -> None:
    job, _ = submit(jobs, question(0), MODEL)
    jobs.cancel(job.id)
    submit(jobs, question(1), MODEL)
    with pytest.raises(QueueLimitReached):
        jobs.retry(job.id, limits=Limits(queued=1))
    after = jobs.fetch(job.id)
    assert after is not None
    assert after.state == "canceled"


# -- at the same moment --------------------------------------------------------------------------------------


def at_once(*actions: Callable[[], object]) -> list[object]:
    """What each returned, all begun at the same moment."""
    ready, outcomes = threading.Barrier(len(actions)), list[object]([None] * len(actions))

    def act(number: int) -> None:
        ready.wait()
        outcomes[number] = actions[number]()

    threads = [threading.Thread(target=act, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_cancel_that_meets_a_start_wins_or_is_seen(redis_url: str, redis: Redis, store: Store) -> None:
    jobs, leases = Jobs(redis, store), Leases(redis)
    with connect(redis_url) as other:
        canceling = Jobs(other, store)
        for unit in range(40):
            run = Run(submit(jobs, question(unit), MODEL)[0].id, "e1")
            assert pop(redis) == run.job_id
            taken, _ = at_once(partial(take, leases, run), partial(canceling.cancel, run.job_id))
            if taken == "taken":
                assert leases.beat(run).cancel
                assert leases.close(run, "canceled", slot="s") == "closed"
            assert record(jobs, run).state == "canceled"
            assert redis.llen(rq_names.INTERMEDIATE_KEY) + redis.zcard(rq_names.LEASES_KEY) == 0


def test_of_many_who_retry_one_queues_it(redis_url: str, redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    jobs.cancel(job.id)
    clients = [connect(redis_url) for _ in range(8)]
    outcomes = at_once(*(partial(Jobs(client, store).retry, job.id) for client in clients))
    for client in clients:
        client.close()
    assert sorted(cast(tuple[object, bool], outcome)[1] for outcome in outcomes) == [False] * 7 + [True]
    assert waiting(redis) == [job.id]
