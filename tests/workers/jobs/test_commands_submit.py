"""What a submission may change: limits, joining, hurrying, deadlines."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from pydantic import ValidationError
from redis import Redis

from proxygrad.protocol.requests import VisualizationRequest
from proxygrad.spec import Spec
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, started, waiting
from workers.broker import rq_names
from workers.errors import QueueLimitReached
from workers.jobs.commands import RETRY_UNKNOWN_S
from workers.jobs.repository import Jobs, Limits
from workers.queue.fair_queue import FairQueue
from workers.queue.leases import Leases, Run


def request(unit: int = 0, **urgency: Any) -> VisualizationRequest:
    return VisualizationRequest.model_validate(
        {"model": "tiny", "layer": "conv", "unit": unit, "steps": 4, **urgency}
    )


# -- the request ---------------------------------------------------------------------------------------------


def test_urgency_is_no_part_of_the_question() -> None:
    asked = request(priority="batch", deadline_s=5)
    assert type(asked.spec) is Spec
    assert asked.spec == question()
    assert asked.spec.identity(MODEL) == question().identity(MODEL)
    assert VisualizationRequest.of(question()).spec == question()


def test_what_a_preset_fills_in_is_still_told_from_what_was_given() -> None:
    asked = VisualizationRequest(model="tiny", layer="conv", unit=0, preset="fast", steps=128)
    plain = Spec(model="tiny", layer="conv", unit=0, preset="fast", steps=128)
    assert asked.spec.resolve(MODEL) == plain.resolve(MODEL)
    assert VisualizationRequest.of(plain).spec.resolve(MODEL) == plain.resolve(MODEL)


@pytest.mark.parametrize("urgency", [{"deadline_s": 0}, {"deadline_s": 86_401}, {"priority": "urgent"}])
def test_other_urgencies_are_refused(urgency: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**urgency)


def test_cost_is_in_megapixel_steps() -> None:
    assert question(steps=4).cost(MODEL) == pytest.approx(4 * 8 * 8 / 1e6)
    assert question(steps=4).resolve(MODEL).cost(MODEL) == pytest.approx(4 * 8 * 8 / 1e6)
    wide = MODEL.model_copy(update={"input_shape": (3, 100, 200)})
    assert question(steps=128).cost(wide) == pytest.approx(2.56)
    sized = Spec(model="tiny", layer="conv", unit=0, preset="fast", size_px=500)
    assert sized.cost(MODEL) == pytest.approx(12 * 0.25)


# -- limits --------------------------------------------------------------------------------------------------


def test_of_a_full_queue_each_caller_is_told_the_count_and_nothing_is_written(
    redis: Redis, jobs: Jobs
) -> None:
    limits = Limits(queued=3, queued_per_caller=2)
    submit(jobs, question(0), MODEL, caller="a", limits=limits)
    submit(jobs, question(1), MODEL, caller="a", limits=limits)
    before = sorted(cast(list[bytes], redis.keys()))
    with pytest.raises(
        QueueLimitReached, match="2 jobs of caller 'a' wait already, and at most 2 may"
    ) as refused:
        submit(jobs, question(2), MODEL, caller="a", limits=limits)
    assert (refused.value.code, refused.value.whose) == ("caller_queue_full", "a")
    assert (refused.value.count, refused.value.limit) == (2, 2)
    assert refused.value.retry_after_s == RETRY_UNKNOWN_S
    assert sorted(cast(list[bytes], redis.keys())) == before
    submit(jobs, question(2), MODEL, caller="b", limits=limits)
    with pytest.raises(QueueLimitReached, match="3 jobs wait already, and at most 3 may") as refused:
        submit(jobs, question(3), MODEL, caller="c", limits=limits)
    assert (refused.value.code, refused.value.whose) == ("queue_full", None)


def test_joining_is_never_refused_and_what_runs_does_not_count(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    limits = Limits(queued=1, queued_per_caller=1)
    submit(jobs, question(0), MODEL, limits=limits)
    assert not submit(jobs, question(0), MODEL, limits=limits)[1]
    job_id = pop(redis)
    assert submit(jobs, question(1), MODEL, limits=limits)[1]
    leases.take(Run(job_id, "e1"), slot="s", worker="w")
    assert not submit(jobs, question(0), MODEL, limits=limits)[1]
    with pytest.raises(QueueLimitReached):
        submit(jobs, question(2), MODEL, limits=limits)


def test_when_to_come_back_follows_from_the_pace_of_ends(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    for unit in range(33):
        submit(jobs, question(unit), MODEL)
        run = Run(pop(redis), "e1")
        leases.take(run, slot="s", worker="w")
        leases.close(run, "succeeded", slot="s")
    limits = Limits(queued=0, queued_per_caller=1)
    with pytest.raises(QueueLimitReached) as refused:
        submit(jobs, question(50), MODEL, limits=limits)
    assert refused.value.retry_after_s == 2  # 33 within the last minute
    redis.hincrbyfloat("proxygrad:rate", "at", -100.0)
    with pytest.raises(QueueLimitReached) as refused:
        submit(jobs, question(50), MODEL, limits=limits)
    assert 9 <= refused.value.retry_after_s <= 11  # fading: 0.55/s * exp(-100/60)


# -- joining -------------------------------------------------------------------------------------------------


def test_who_joins_makes_a_waiting_batch_job_interactive(redis: Redis, jobs: Jobs) -> None:
    behind, _ = submit(jobs, request(0, priority="batch"), MODEL, caller="a")
    for unit in (1, 2):
        submit(jobs, request(unit, priority="batch"), MODEL, caller="b")
    hurried, created = submit(jobs, request(2), MODEL, caller="c")
    assert (hurried.priority, hurried.caller, created) == ("interactive", "b", False)
    assert jobs.queue_position(hurried.id) == 0
    assert len(waiting(redis)) == 3
    assert submit(jobs, request(2, priority="batch"), MODEL)[0].priority == "interactive"
    assert pop(redis) == hurried.id
    assert jobs.queue_position(behind.id) == 0


def test_who_joins_a_running_batch_job_makes_it_interactive_should_it_come_back(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    job, _ = submit(jobs, request(priority="batch"), MODEL)
    run = Run(pop(redis), "e1")
    leases.take(run, slot="s", worker="w")
    assert submit(jobs, request(), MODEL)[0].priority == "interactive"
    submit(jobs, request(1), MODEL)
    assert leases.give_back(run)
    assert FairQueue(redis).pop(["tiny"], 5)[0] == job.id


def test_of_two_deadlines_the_later_counts_and_none_is_the_latest(redis: Redis, jobs: Jobs) -> None:
    def deadline(**urgency: Any) -> float | None:
        return submit(jobs, request(**urgency), MODEL)[0].deadline_at

    first = deadline(deadline_s=50)
    assert first is not None
    assert first - time.time() == pytest.approx(50, abs=10)
    assert deadline(deadline_s=10) == first
    later = deadline(deadline_s=100)
    assert later is not None
    assert later - first == pytest.approx(50, abs=10)
    ((_, score),) = cast(
        list[tuple[bytes, float]], redis.zrange("proxygrad:deadlines", 0, -1, withscores=True)
    )
    assert score == later
    assert deadline() is None
    assert deadline(deadline_s=1) is None
    assert redis.zcard("proxygrad:deadlines") == 0


def test_a_running_job_learns_of_its_new_deadline(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    submit(jobs, request(deadline_s=50), MODEL)
    run = Run(pop(redis), "e1")
    leases.take(run, slot="s", worker="w")
    assert redis.zcard("proxygrad:deadlines") == 0
    deadline_at = leases.beat(run).deadline_at
    assert deadline_at is not None
    submit(jobs, request(deadline_s=500), MODEL)
    later_at = leases.beat(run).deadline_at
    assert later_at is not None
    assert later_at - deadline_at == pytest.approx(450, abs=20)
    submit(jobs, request(), MODEL)
    assert leases.beat(run).deadline_at is None
    assert redis.zcard("proxygrad:deadlines") == 0


def test_an_answer_under_removal_is_computed_again(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    leases.close(run, "succeeded", slot="s")
    redis.set(f"proxygrad:deletion-lock:{run.job_id}", "token")
    again, created = submit(jobs, question(), MODEL)
    assert (again.state, created) == ("queued", True)
    assert redis.zcard(rq_names.FINISHED_KEY) == 0
