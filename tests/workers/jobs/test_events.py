"""Every change of a job is told in the step that makes it, and kept for who comes late."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis
from redis.client import PubSub

from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, started, take
from workers.broker import keys, rq_names
from workers.broker.limits import EVENT_STREAM_LENGTH, EVENT_STREAM_TTL_S
from workers.jobs.events import Event, Events, is_after
from workers.jobs.repository import Job, Jobs
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Run


def told(redis: Redis, job_id: str) -> list[str]:
    """The states that the job's stream tells of, and the steps."""
    _, _, events = Events(redis).read(job_id, Events.START)
    found: list[dict[str, Any]] = [json.loads(event.data) for event in events]
    return [str(each.get("state", each.get("step"))) for each in found]


def test_the_way_of_a_job_is_told(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    leases.write(run, {"step": 2, "activation": 0.5})
    leases.give_back(run)
    again = Run(pop(redis), "e2")
    take(leases, again)
    leases.close(again, "succeeded", fields={"step": 4}, slot="host.0")
    assert told(redis, run.job_id) == [
        "running",
        "2",
        "queued",
        "running",
        "succeeded",
    ]  # that it waits, its record says
    assert 0 < redis.ttl(keys.events_key(run.job_id)) <= EVENT_STREAM_TTL_S


def test_a_failure_is_told_with_its_reason(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    problem = {"code": "lane_failed", "detail": 'an "infinite" activation\nat step 3'}
    leases.close(run, "failed", fields={"problem": json.dumps(problem)}, slot="host.0")
    fields, last, events = Events(redis).read(run.job_id, Events.START)
    assert fields[b"state"] == b"failed"
    assert (json.loads(events[-1].data), events[-1].final) == ({"state": "failed", "problem": problem}, True)
    assert last == events[-1].event_id


def test_other_ends_are_told_too(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    waits, _ = submit(jobs, question(1), MODEL)
    jobs.cancel(waits.id)
    assert told(redis, waits.id) == ["canceled"]
    jobs.retry(waits.id)
    assert told(redis, waits.id) == ["canceled", "queued"]
    assert redis.ttl(keys.events_key(waits.id)) == -1
    jobs.cancel(waits.id)
    run = started(redis, jobs, leases)
    for execution in ("e2", "e3", "e4"):
        redis.zadd(rq_names.LEASES_KEY, {run.member: 1})
        Janitor(redis).reclaim_expired()
        if execution != "e4":
            run = Run(pop(redis), execution)
            take(leases, run)
    assert told(redis, run.job_id) == [*["queued", "running"] * 3, "failed"][1:]


def test_what_does_not_count_is_not_told(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    leases.give_back(run)
    before = told(redis, run.job_id)
    with pytest.raises(Exception, match="lease"):
        leases.write(run, {"step": 3})
    assert leases.close(run, "succeeded", slot="host.0") == "lost"
    with pytest.raises(Exception, match="lease"):
        leases.show(run, 3, b"png")
    submit(jobs, question(), MODEL)
    assert told(redis, run.job_id) == before


@pytest.mark.parametrize("activation", ["nan", "inf", "-inf", None])
def test_an_activation_that_is_no_number_of_json_is_null(
    redis: Redis, jobs: Jobs, leases: Leases, activation: str | None
) -> None:
    run = started(redis, jobs, leases)
    leases.write(run, {"step": 1} if activation is None else {"step": 1, "activation": activation})
    _, _, events = Events(redis).read(run.job_id, Events.START)
    assert json.loads(events[-1].data) == {"step": 1, "steps": 4, "activation": None}


def test_a_job_that_only_waits_has_no_stream(redis: Redis, jobs: Jobs) -> None:
    """Of many thousands that wait it would be most of their memory."""
    with PubSub(redis.connection_pool) as pubsub:
        job_id = submit(jobs, question(), MODEL)[0].id
        jobs.cancel(job_id)
        redis.delete(keys.events_key(job_id))
        pubsub.subscribe(keys.events_key(job_id))
        pubsub.get_message(timeout=10)
        jobs.retry(job_id)
        message = pubsub.get_message(timeout=10)
    assert message is not None
    event = Event.published(message["data"])
    assert (event.event_id, json.loads(event.data)["state"]) == (None, "queued")
    assert redis.exists(keys.events_key(job_id)) == 0
    assert Events(redis).read(job_id, Events.START)[1:] == (Events.START, [])


def test_a_stream_is_bounded(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    for step in range(EVENT_STREAM_LENGTH + 300):
        leases.write(run, {"step": step, "activation": 1e-5})
    assert EVENT_STREAM_LENGTH <= redis.xlen(keys.events_key(run.job_id)) < EVENT_STREAM_LENGTH + 128


def test_previews_are_for_those_who_watch_and_kept_nowhere(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    assert not leases.write(run, {"step": 1})
    jobs.watch([run.job_id])
    assert leases.write(run, {"step": 2})
    with PubSub(redis.connection_pool) as pubsub:
        pubsub.subscribe(keys.events_key(run.job_id))
        pubsub.get_message(timeout=10)
        leases.show(run, 2, b"png")
        message = pubsub.get_message(timeout=10)
    assert message is not None
    event = Event.published(message["data"])
    assert (event.event_id, event.kind) == (None, "preview")
    assert json.loads(event.data) == {"step": 2, "media_type": "image/png", "data": "cG5n"}
    assert told(redis, run.job_id) == ["running", "1", "2"]


def test_a_full_redis_is_written_to_all_the_same(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    redis.config_set("maxmemory", 1)
    try:
        leases.write(run, {"step": 1})
        leases.close(run, "canceled", slot="host.0")
    finally:
        redis.config_set("maxmemory", 0)
    assert told(redis, run.job_id)[-1] in ("canceled", "queued")


def test_a_stream_that_is_none_fails_no_change(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    job: Job
    job, _ = submit(jobs, question(), MODEL)
    redis.delete(keys.events_key(job.id))
    redis.set(keys.events_key(job.id), "in the way")
    assert take(leases, Run(pop(redis), "e1")) == "taken"


def test_a_reader_gets_what_came_since(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    _, last, nothing = Events(redis).read(run.job_id, None)
    assert nothing == []
    leases.write(run, {"step": 1})
    _, later, events = Events(redis).read(run.job_id, last)
    assert [event.kind for event in events] == ["progress"]
    assert is_after(later, last)
    assert not is_after(last, last)
    assert is_after("10-0", "9-5")
