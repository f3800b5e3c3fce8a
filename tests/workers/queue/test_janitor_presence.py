"""Which processes are there: the list, and the sweep that looks at it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
from redis import Redis
from redis.client import PubSub

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="a worker computes with torch")

from tests.support.eventually import until
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, record, started, take, waiting
from tests.workers.queue.test_janitor import at_once
from workers.broker import keys, rq_names
from workers.broker.keys import presence_channel
from workers.broker.limits import MAX_LOSSES
from workers.jobs.repository import Jobs
from workers.queue.janitor import ABSENT_S, SILENT_S, SWEEP_S, Janitor, Presence
from workers.queue.leases import LEASE_S, Leases, Run

LIST = keys.PRESENCE_KEY
FOR_LONG_S = max(ABSENT_S, SILENT_S) + 0.5


@pytest.fixture
def run(redis: Redis, jobs: Jobs, leases: Leases) -> Run:
    """A run of the process ``host``, which is on the list."""
    Presence(redis).enlist("host")
    return started(redis, jobs, leases)


@contextmanager
def attending(redis: Redis, process: str) -> Iterator[None]:
    """Within, the process is there; Redis has seen it go afterwards."""
    with PubSub(redis.connection_pool) as pubsub:
        pubsub.subscribe(presence_channel(process))
        until(lambda: subscribers(redis, process) == 1)
        yield
    until(lambda: subscribers(redis, process) == 0)


def subscribers(redis: Redis, process: str) -> int:
    counts = dict(cast(list[tuple[bytes, int]], redis.pubsub_numsub(presence_channel(process))))
    return counts[presence_channel(process).encode()]


def mark(redis: Redis, process: str = "host") -> bytes | None:
    return cast("bytes | None", redis.hget(LIST, process))


def pass_by(redis: Redis, seconds: float, process: str = "host") -> None:
    """As if everything had been seen and beaten so much earlier, with sweeps all the time."""
    text = mark(redis, process)
    assert text is not None
    since, seen_s = map(float, text.split())
    redis.hset(LIST, process, f"{since - seconds:.6f} {seen_s + seconds}")
    for member in cast(list[bytes], redis.zrange(rq_names.LEASES_KEY, 0, -1)):
        execution = f"rq:execution:{member.decode()}"
        beaten_at = float(redis.hget(execution, "last_heartbeat") or 0)
        redis.hset(execution, "last_heartbeat", f"{beaten_at - seconds:.6f}")


def test_who_is_there_keeps_its_jobs(redis: Redis, janitor: Janitor, run: Run) -> None:
    with attending(redis, "host"):
        assert janitor.sweep() == {}
        assert mark(redis) == b""


def test_a_vanished_process_loses_its_jobs_before_their_leases_end(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, run: Run
) -> None:
    assert janitor.sweep() == {}  # seen for the first time
    assert janitor.sweep() == {}
    pass_by(redis, FOR_LONG_S)
    ends = redis.zscore(rq_names.LEASES_KEY, run.member)
    assert ends is not None
    assert ends > time.time()
    assert janitor.sweep() == {run.job_id: "queued"}
    assert record(jobs, run).losses == 1
    assert mark(redis) is None
    assert not leases.beat(run)  # it changes nothing any more
    assert take(leases, Run(pop(redis), "e2")) == "taken"


def test_who_was_never_on_the_list_is_left_to_the_leases(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    started(redis, jobs, leases)
    for _ in range(3):
        assert janitor.sweep() == {}
    assert redis.hlen(LIST) == 0


def test_who_comes_back_was_never_away(redis: Redis, janitor: Janitor, run: Run) -> None:
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    with attending(redis, "host"):
        assert janitor.sweep() == {}
        assert mark(redis) == b""
    assert janitor.sweep() == {}
    assert (mark(redis) or b"").endswith(b" 0")  # from the beginning


def test_a_beat_since_is_a_sign_of_life(redis: Redis, leases: Leases, janitor: Janitor, run: Run) -> None:
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    assert leases.beat(run)
    assert janitor.sweep() == {}
    assert mark(redis) is None  # from now on its lease decides
    assert leases.beat(run)


def test_a_job_taken_since_is_a_sign_of_life(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, run: Run
) -> None:
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    submit(jobs, question(1), MODEL)
    assert take(leases, Run(pop(redis), "e2")) == "taken"
    assert janitor.sweep() == {}


def test_a_beat_has_to_be_overdue(redis: Redis, janitor: Janitor, run: Run) -> None:
    janitor.sweep()
    pass_by(redis, ABSENT_S)
    assert janitor.sweep() == {}
    pass_by(redis, SILENT_S - ABSENT_S)
    assert janitor.sweep() == {run.job_id: "queued"}


def test_after_a_gap_everybody_is_there_until_seen_otherwise(
    redis: Redis, janitor: Janitor, run: Run
) -> None:
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    redis.hset("proxygrad:sweeps", "swept", time.time() - LEASE_S)  # Redis was away
    assert janitor.sweep() == {}
    assert janitor.sweep() == {}
    assert mark(redis) == b""
    redis.hset("proxygrad:sweeps", "patient_until", time.time())
    assert janitor.sweep() == {}
    assert (mark(redis) or b"").endswith(b" 0")


def test_a_short_gap_counts_as_one_sweep(redis: Redis, janitor: Janitor, run: Run) -> None:
    """Redis may have stood still in it, and a connection that was cut had no time to come back."""
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    since, _ = (mark(redis) or b"").decode().split()
    redis.hset(LIST, "host", f"{since} {ABSENT_S - SWEEP_S - 0.1}")
    redis.hset("proxygrad:sweeps", "swept", time.time() - (LEASE_S / 2 - 1.5))
    assert janitor.sweep() == {}
    redis.hset("proxygrad:sweeps", "swept", time.time() - SWEEP_S)
    assert janitor.sweep() == {run.job_id: "queued"}


def test_jobs_of_others_stay(redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, run: Run) -> None:
    submit(jobs, question(1), MODEL)
    other = Run(pop(redis), "e2")
    assert leases.take(other, slot="else.0", worker="else") == "taken"
    Presence(redis).enlist("else")
    with attending(redis, "else"):
        janitor.sweep()
        pass_by(redis, FOR_LONG_S)
        assert janitor.sweep() == {run.job_id: "queued"}
        assert leases.beat(other)


def test_who_has_nothing_leaves_the_list(redis: Redis, janitor: Janitor) -> None:
    Presence(redis).enlist("host")
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    assert janitor.sweep() == {}
    assert redis.hlen(LIST) == 0


def test_more_jobs_than_a_sweep_looks_at(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, run: Run
) -> None:
    for unit in range(1, 130):
        submit(jobs, question(unit), MODEL)
        take(leases, Run(pop(redis), "e1"))
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    found = [len(janitor.reclaim_expired()) for _ in range(3)]
    assert found == [100, 30, 0]
    assert redis.hlen(LIST) == 0


def test_of_many_janitors_one_finds_each_job(
    redis_url: str, redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, run: Run
) -> None:
    for unit in range(1, 40):
        submit(jobs, question(unit), MODEL)
        take(leases, Run(pop(redis), "e1"))
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    found = at_once(redis_url, Janitor.reclaim_expired)
    finders = Counter(job_id for each in found for job_id in cast(dict[str, str], each))
    assert Counter(waiting(redis)) == finders
    assert set(finders.values()) == {1}
    assert len(finders) == 40


def test_losses_of_a_process_that_is_heard_of_again_do_not_count(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, run: Run
) -> None:
    for life in range(MAX_LOSSES):
        janitor.sweep()
        pass_by(redis, FOR_LONG_S)
        assert janitor.sweep() == {run.job_id: "queued"}
        assert record(jobs, run).losses == 1
        Presence(redis).enlist("host")
        Presence(redis).enlist("host")  # once, however often it says so
        assert record(jobs, run).losses == 0
        assert take(leases, Run(pop(redis), f"again-{life}")) == "taken"


def test_what_has_ended_meanwhile_keeps_its_losses(
    redis: Redis, jobs: Jobs, janitor: Janitor, run: Run
) -> None:
    janitor.sweep()
    pass_by(redis, FOR_LONG_S)
    janitor.sweep()
    jobs.cancel(run.job_id)
    Presence(redis).enlist("host")
    assert record(jobs, run).losses == 1
