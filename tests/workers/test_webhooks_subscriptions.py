"""Who is told when a job ends: with the change of its state, each once, whoever made it end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import VisualizationRequest
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, take
from workers.broker import keys, limits, rq_names
from workers.broker.limits import MAX_LOSSES
from workers.errors import QueueLimitReached, TooManyWebhooks
from workers.jobs.commands import DeliverNow
from workers.jobs.repository import Job, Jobs, Limits
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Outcome, Run
from workers.webhooks import Deliveries, DeliveryRecord

URL, OTHER = "https://a.example/x", "https://b.example/x"


def ask(jobs: Jobs, url: str | None = URL, caller: str = "one", unit: int = 0, **wishes: float) -> Job:
    request = VisualizationRequest.of(question(unit)).model_copy(update={"webhook": url, **wishes})
    return submit(jobs, request, MODEL, caller=caller)[0]


def told(redis: Redis) -> list[DeliveryRecord]:
    """What is on its way, the oldest first."""
    found, _ = Deliveries(redis).recent(None, 1000, 1000, lambda _: True, caller=None)
    return found[::-1]


def words(redis: Redis) -> list[tuple[str, str, str]]:
    return sorted((each.caller, each.url, each.type) for each in told(redis))


def run(redis: Redis, leases: Leases) -> Run:
    started = Run(pop(redis), "e1")
    assert take(leases, started) == "taken"
    return started


def end(leases: Leases, started: Run, outcome: Outcome) -> None:
    fields: dict[str, str | int | float] = {"activation": "2.5"}
    if outcome == "failed":
        fields = {"problem": Problem(code="lane_failed", detail="nan").model_dump_json()}
    leases.close(started, outcome, fields=fields, slot="host.0", ran_s=1.0)


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_the_end_is_told_with_what_there_is_to_say(
    redis: Redis, jobs: Jobs, leases: Leases, outcome: Outcome
) -> None:
    job = ask(jobs)
    assert told(redis) == []
    end(leases, run(redis, leases), outcome)
    (event,) = told(redis)
    assert (event.type, event.subject, event.caller) == (f"visualization.{outcome}", job.id, "one")
    assert (event.url, event.receiver) == (URL, "https://a.example")
    assert (event.state, event.attempts) == ("pending", 0)
    if outcome == "succeeded":
        assert (event.activation, event.problem) == (2.5, None)
    else:
        assert event.problem == Problem(code="lane_failed", detail="nan")
    ended = jobs.fetch(job.id)
    assert ended is not None
    assert ended.finished_at == event.created_at


def test_a_waiting_job_that_is_canceled_is_told(redis: Redis, jobs: Jobs) -> None:
    jobs.cancel(ask(jobs).id)
    assert words(redis) == [("one", URL, "visualization.canceled")]


def test_a_run_that_is_canceled_is_told_when_it_has_stopped(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    job = ask(jobs)
    started = run(redis, leases)
    jobs.cancel(job.id, caller="one")
    assert told(redis) == []
    end(leases, started, "canceled")
    assert words(redis) == [("one", URL, "visualization.canceled")]


def test_a_deadline_is_told(redis: Redis, jobs: Jobs) -> None:
    job = ask(jobs, deadline_s=5.0)
    redis.zadd("proxygrad:deadlines", {job.id: 1})
    redis.hset(keys.job_key(job.id), "deadline_at", job.created_at - 1)
    assert Janitor(redis).fail_overdue() == [job.id]
    (event,) = told(redis)
    assert event.problem is not None
    assert (event.type, event.problem.code) == ("visualization.failed", "deadline_exceeded")


def test_a_job_whose_workers_died_is_told_once(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    ask(jobs)
    for life in range(MAX_LOSSES):
        assert told(redis) == []
        started = Run(pop(redis), f"e{life}")
        assert take(leases, started) == "taken"
        redis.zadd(rq_names.LEASES_KEY, {started.member: 1})
        Janitor(redis).sweep()
    (event,) = told(redis)
    assert event.problem is not None
    assert event.problem.code == "worker_lost"


def test_each_caller_is_told_at_each_of_its_urls_once(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    for caller, url in [("one", URL), ("one", URL), ("one", OTHER), ("two", URL), ("three", None)]:
        ask(jobs, url, caller)
    end(leases, run(redis, leases), "succeeded")
    kind = "visualization.succeeded"
    assert words(redis) == [("one", URL, kind), ("one", OTHER, kind), ("two", URL, kind)]


def test_what_one_withdraws_from_is_told_it_then_and_never_again(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    job = ask(jobs, URL, "one")
    ask(jobs, URL, "two")
    jobs.cancel(job.id, caller="one")
    assert words(redis) == [("one", URL, "visualization.canceled")]
    end(leases, run(redis, leases), "succeeded")
    assert words(redis) == [
        ("one", URL, "visualization.canceled"),
        ("two", URL, "visualization.succeeded"),
    ]


def test_who_asks_again_after_withdrawing_is_told_of_the_end(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    job = ask(jobs, URL, "one")
    ask(jobs, None, "two")
    jobs.cancel(job.id, caller="one")
    ask(jobs, URL, "one")
    end(leases, run(redis, leases), "succeeded")
    assert [each.ended for each in told(redis)] == ["canceled", "succeeded"]


def test_who_deletes_is_told_nothing(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    job = ask(jobs, URL, "one")
    ask(jobs, URL, "two")
    jobs.forget(job.id, caller="one")
    end(leases, run(redis, leases), "succeeded")
    assert words(redis) == [("two", URL, "visualization.succeeded")]
    assert jobs.forget(job.id)
    assert not redis.exists(keys.subscriptions_key(job.id))


def test_a_retry_is_told_to_whoever_retries(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    job = ask(jobs, URL, "one")
    ask(jobs, OTHER, "two")
    end(leases, run(redis, leases), "failed")
    jobs.retry(job.id, caller="one")
    assert redis.ttl(keys.subscriptions_key(job.id)) == -1
    end(leases, run(redis, leases), "succeeded")
    assert [(each.caller, each.ended) for each in told(redis)][2:] == [("one", "succeeded")]
    assert 0 < redis.ttl(keys.subscriptions_key(job.id)) <= limits.FINISHED_TTL_S


def test_asked_again_after_it_failed_it_is_told_again(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    ask(jobs)
    end(leases, run(redis, leases), "failed")
    ask(jobs)
    end(leases, run(redis, leases), "succeeded")
    events = told(redis)
    assert [each.ended for each in events] == ["failed", "succeeded"]
    assert len({each.id for each in events}) == 2


def test_an_answer_that_is_there_is_told_at_once_and_once_a_minute(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    for _ in range(3):
        DeliverNow(redis)("visualization", "0" * 32, "one", URL, 1.5)
    DeliverNow(redis)("visualization", "0" * 32, "two", URL, 1.5)
    assert words(redis) == [
        ("one", URL, "visualization.succeeded"),
        ("two", URL, "visualization.succeeded"),
    ]
    assert {each.activation for each in told(redis)} == {1.5}
    for key in redis.keys("proxygrad:webhook-sent:*"):
        assert 0 < redis.ttl(key) <= limits.WEBHOOK_REPEAT_S


def test_urls_of_one_caller_are_bounded_and_others_have_their_own(redis: Redis, jobs: Jobs) -> None:
    for number in range(limits.MAX_WEBHOOKS):
        ask(jobs, f"{URL}/{number}")
    before = redis.hgetall(keys.subscriptions_key(ask(jobs, None).id))
    with pytest.raises(TooManyWebhooks, match="16 URLs"):
        ask(jobs, f"{URL}/more")
    job = ask(jobs, f"{URL}/0")
    assert redis.hgetall(keys.subscriptions_key(job.id)) == before
    ask(jobs, f"{URL}/more", "two")


def test_what_a_full_queue_refuses_leaves_nothing(redis: Redis, jobs: Jobs) -> None:
    ask(jobs, None)
    request = VisualizationRequest.of(question(1)).model_copy(update={"webhook": URL})
    with pytest.raises(QueueLimitReached):
        submit(jobs, request, MODEL, limits=Limits(queued=1))
    assert redis.keys("proxygrad:webhook*") == []


def test_the_oldest_of_too_many_goes_with_all_that_is_of_it(
    redis: Redis, set_limit: Callable[[str, int], None]
) -> None:
    set_limit("MAX_DELIVERIES", 2)
    for number in range(4):
        DeliverNow(redis)("visualization", f"{number:032}", "one", f"https://{number}.example/", 1.0)
    assert [each.receiver for each in told(redis)] == ["https://2.example", "https://3.example"]
    assert len(redis.keys("proxygrad:delivery:*")) == len(redis.keys("proxygrad:deliveries:due:*")) == 2
    assert redis.zcard(keys.RECEIVERS_KEY) == 2
