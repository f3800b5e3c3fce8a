"""How the fleet stands: counted from what the queue's own steps leave, and at a cost that does not grow."""

from __future__ import annotations

from typing import Any, cast

import pytest
from redis import Redis

from proxygrad.protocol.attributions import ResolvedAttributionRequest
from proxygrad.protocol.jobs import State
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import VisualizationRequest
from proxygrad.spec.attribution import InputImage
from tests.support.expanded_batches import ask, asked
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import STAMP, pop, record, started, take
from tests.workers.queue.test_janitor import expire
from workers.batches.repository import Batches
from workers.broker import keys, rq_names
from workers.broker.limits import MAX_LOSSES
from workers.broker.pipeline import run_blocking
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.fleet.statistics import ENDS, FleetStatistics, FleetStatisticsReader
from workers.jobs.kinds.attribution import ATTRIBUTION
from workers.jobs.kinds.registry import capabilities
from workers.jobs.repository import DEFAULT_LIMITS, Jobs
from workers.jobs.requests import Submission
from workers.process.rq_registration import RQRegistration
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Outcome, Run

#: What the script does; other clients of the server may ping it.
READS = {"exists", "get", "hget", "hgetall", "hkeys", "lrange", "scard", "smembers", "zcard", "zrange"}


@pytest.fixture
def censuses(redis: Redis) -> FleetStatisticsReader:
    return FleetStatisticsReader(redis)


def serve(redis: Redis, worker: str, *names: str, broken: tuple[str, ...] = ()) -> None:
    problem = Problem(code="model_unavailable", detail="truncated")
    models = [ServedModel(name=name, info=MODEL.model_copy(update={"name": name})) for name in names]
    served = [*models, *(ServedModel(name=name, problem=problem) for name in broken)]
    catalog.publish(redis, worker, served, capabilities=capabilities)


def attribute(redis: Redis, jobs: Jobs) -> str:
    """The id of an attribution that waits."""
    image = InputImage(sha256="a" * 64, channels=1, height_px=8, width_px=8)
    request = ResolvedAttributionRequest(model=MODEL.name, layer=question().layer, unit=0, image=image)
    submission = Submission.of(ATTRIBUTION, request, MODEL, "one", None)
    return run_blocking(jobs.submit(submission, DEFAULT_LIMITS), redis)[0].id


def ended(**counts: int) -> dict[tuple[str, State], int]:
    """Of visualizations, where workers offer nothing else."""
    return {("visualization", state): counts.get(state, 0) for state in ENDS}


def end(leases: Leases, run: Run, outcome: Outcome) -> None:
    leases.close(run, outcome, fields={}, slot="host.0", ran_s=1.0)


def test_of_nothing_there_is_nothing(censuses: FleetStatisticsReader) -> None:
    assert censuses.take() == FleetStatistics(
        waiting={},
        oldest_s=0.0,
        running=0,
        ended=ended(),
        lost_runs=0,
        workers=0,
        slots=0,
        models={},
        batches=0,
        deliveries=0,
    )


def test_what_waits_is_counted_by_priority_kind_and_model(
    redis: Redis, jobs: Jobs, censuses: FleetStatisticsReader
) -> None:
    serve(redis, "w", "idle")
    for unit in range(3):
        submit(jobs, question(unit), MODEL)
    submit(jobs, VisualizationRequest.of(question(7)).model_copy(update={"priority": "batch"}), MODEL)
    attribute(redis, jobs)
    statistics = censuses.take()
    assert statistics.waiting == {
        ("interactive", "visualization", "idle"): 0,
        ("batch", "visualization", "idle"): 0,
        ("interactive", "attribution", "idle"): 0,
        ("batch", "attribution", "idle"): 0,
        ("interactive", "visualization", "tiny"): 3,
        ("batch", "visualization", "tiny"): 1,
        ("interactive", "attribution", "tiny"): 1,
    }
    assert statistics.models == {"idle": True}


def test_what_ends_is_counted_by_kind(redis: Redis, jobs: Jobs, censuses: FleetStatisticsReader) -> None:
    """Of the kind that there was first under the names that older versions read."""
    serve(redis, "w", "tiny")
    jobs.cancel(submit(jobs, question(), MODEL)[0].id)
    for _ in range(2):
        jobs.cancel(attribute(redis, jobs))
    attributions = {("attribution", state): 0 for state in ENDS} | {("attribution", "canceled"): 2}
    assert censuses.take().ended == ended(canceled=1) | attributions
    assert redis.hgetall(keys.ENDED_KEY) == {b"canceled": b"1", b"attribution/canceled": b"2"}


def test_a_job_is_counted_where_it_is_and_once_where_it_ended(
    redis: Redis, jobs: Jobs, leases: Leases, censuses: FleetStatisticsReader
) -> None:
    run = started(redis, jobs, leases)
    assert (censuses.take().running, censuses.take().waiting) == (1, {})
    end(leases, run, "succeeded")
    for unit, outcome in ((1, "failed"), (2, "expired"), (3, "canceled")):
        job, _ = submit(jobs, question(unit), MODEL)
        run = Run(pop(redis), "e")
        take(leases, run)
        if outcome == "canceled":
            jobs.cancel(job.id)
        end(leases, run, cast(Outcome, outcome))
    jobs.cancel(submit(jobs, question(4), MODEL)[0].id)
    census = censuses.take()
    assert (census.running, sum(census.waiting.values())) == (0, 1)  # what has no deadline has not expired
    assert census.ended == ended(succeeded=1, failed=1, canceled=2)
    assert census.lost_runs == 0


def test_runs_that_were_lost_are_counted_and_the_job_that_fails_of_them(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, censuses: FleetStatisticsReader
) -> None:
    submit(jobs, question(), MODEL)
    for life in range(MAX_LOSSES):
        run = Run(pop(redis), f"e{life}")
        take(leases, run)
        expire(redis, run)
        janitor.sweep()
        assert censuses.take().lost_runs == life + 1
    assert record(jobs, run).state == "failed"
    assert censuses.take().ended == ended(failed=1)


def test_a_job_that_is_given_back_is_no_loss(
    redis: Redis, jobs: Jobs, leases: Leases, censuses: FleetStatisticsReader
) -> None:
    leases.give_back(started(redis, jobs, leases))
    assert (censuses.take().lost_runs, censuses.take().running) == (0, 0)
    assert sum(censuses.take().waiting.values()) == 1


def test_the_oldest_is_found_behind_what_was_put_back_before_it(
    redis: Redis, jobs: Jobs, leases: Leases, censuses: FleetStatisticsReader
) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(3)]
    for job_id, earlier_s in zip(ids, (60, 3600, 30), strict=True):
        redis.hincrbyfloat(keys.job_key(job_id), "created_at", -earlier_s)
    run = Run(pop(redis), "e")
    take(leases, run)
    leases.give_back(run)
    assert run.job_id == ids[0] == cast(bytes, redis.lindex(rq_names.QUEUE_KEY, 0)).decode()
    assert 3600 <= censuses.take().oldest_s < 3660


def test_a_model_is_ready_where_one_worker_could_load_it(
    redis: Redis, censuses: FleetStatisticsReader
) -> None:
    serve(redis, "one", "both", broken=("here", "nowhere"))
    serve(redis, "other", "both", "here", broken=("nowhere",))
    census = censuses.take()
    assert (census.workers, census.models) == (2, {"both": True, "here": True, "nowhere": False})
    redis.delete(keys.readiness_key("other"))  # as when it was killed ten seconds ago
    census = censuses.take()
    assert (census.workers, census.models) == (1, {"both": True, "here": False, "nowhere": False})


def test_slots_are_those_of_which_rq_has_a_record(redis: Redis, censuses: FleetStatisticsReader) -> None:
    register = RQRegistration(redis)
    for number in range(3):
        register.enroll(f"rq:worker:host.{number}", {"birth": STAMP, "state": "idle"})
    assert censuses.take().slots == 3
    redis.delete("rq:worker:host.1")  # as when it was killed half a minute ago
    assert censuses.take().slots == 2


def test_batches_and_deliveries_are_counted(
    redis: Redis, jobs: Jobs, batches: Batches, censuses: FleetStatisticsReader
) -> None:
    batch = ask(batches, asked({"stop": 3}))
    for number in range(3):
        request = VisualizationRequest.of(question(number)).model_copy(
            update={"webhook": f"https://{number % 2}.example/"}
        )
        jobs.cancel(submit(jobs, request, MODEL, caller="one")[0].id)
    census = censuses.take()
    assert (census.batches, census.deliveries) == (1, 3)
    batches.cancel(batch.id)
    assert censuses.take().batches == 0


def test_the_cost_does_not_grow_with_what_waits_or_has_ended(
    redis: Redis, jobs: Jobs, censuses: FleetStatisticsReader
) -> None:
    def commands() -> int:
        censuses.take()  # Redis knows the script then
        redis.config_resetstat()
        censuses.take()
        stats = cast("dict[str, dict[str, Any]]", redis.info("commandstats"))
        return sum(each["calls"] for name, each in stats.items() if name.removeprefix("cmdstat_") in READS)

    for unit in range(100):
        submit(jobs, question(unit), MODEL)
    before = commands()
    for unit in range(100, 400):
        job, _ = submit(jobs, question(unit), MODEL)
        if unit % 2:
            jobs.cancel(job.id)
    assert censuses.take().waiting["interactive", "visualization", "tiny"] == 250
    assert commands() == before < 150
