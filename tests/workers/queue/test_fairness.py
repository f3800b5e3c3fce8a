"""In which order jobs start: shares and bounds, as docs/queue.md promises them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.waiting_jobs import Queue, job_id
from workers.jobs.repository import Jobs
from workers.storage.store import Store


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(redis)


class PlainSfq:
    """Start-time fair queueing as its paper has it, sections 2 and 2.1, slowly and plainly."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.finish: dict[str, float] = {}
        self.waiting: list[tuple[float, int, str, float]] = []

    def ask(self, number: int, flow: str, cost: float) -> None:
        start = max(self.clock, self.finish.get(flow, 0.0))
        self.finish[flow] = start + cost
        self.waiting.append((start, number, flow, cost))

    def pop(self) -> int:
        first = min(self.waiting)
        self.waiting.remove(first)
        self.clock = max(self.clock, first[0])
        return first[1]


@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_that_of_the_paper(queue: Queue, seed: int) -> None:
    chance, plain = random.Random(seed), PlainSfq()
    costs = [0.1, 0.25, 1.0, 1.0, 6.4, 100.0]  # equal ones, so that there are ties
    for _ in range(400):
        if chance.random() < 0.55 or not plain.waiting:
            flow, cost = chance.choice("abcde"), chance.choice(costs)
            plain.ask(queue.ask(flow, cost), flow, cost)
        else:
            count = chance.randint(1, 3)
            expected = [plain.pop() for _ in range(min(count, len(plain.waiting)))]
            assert queue.pop(count) == expected
    assert queue.pop(1000) == [plain.pop() for _ in range(len(plain.waiting))]


def test_ten_thousand_jobs_of_one_caller_delay_single_ones_of_others_by_one(queue: Queue) -> None:
    queue.flood("flood", 10_000, cost=0.1)
    assert queue.started(5) == ["flood"] * 5
    for caller in ("b", "c", "d"):
        queue.ask(caller, cost=6.4)
    assert queue.started(5) == ["b", "c", "d", "flood", "flood"]
    queue.ask("e")
    assert set(queue.started(2)) == {"e", "flood"}


def test_whoever_has_nothing_waiting_is_behind_one_job_of_each_other_caller(queue: Queue) -> None:
    chance = random.Random(7)
    for number in range(600):
        queue.ask(f"flood-{number % 6}", cost=chance.choice([0.01, 1.0, 50.0]))
    queue.pop(40)
    for number in range(30):
        newcomer = queue.ask(f"new-{number}", cost=chance.choice([0.01, 50.0]))
        before: Counter[str] = Counter()
        for popped in iter(lambda: queue.pop()[0], newcomer):
            before[queue.callers[popped]] += 1
        assert set(before.values()) <= {1}
        queue.pop(chance.randint(0, 3))


def test_shares_are_of_cost_and_not_of_jobs(queue: Queue) -> None:
    for _ in range(60):
        queue.ask("large", cost=4.0)
        queue.ask("small", cost=1.0)
    started = Counter(queue.started(50))
    assert started == {"large": 10, "small": 40}


def test_a_caller_who_asks_one_at_a_time_gets_no_more_than_a_share(queue: Queue) -> None:
    for _ in range(50):
        queue.ask("flood")
    started: list[str] = []
    for _ in range(20):
        queue.ask("polite")  # as soon as the last one has begun
        while "polite" not in (now := queue.started(1)):
            started += now
        started += now
    assert Counter(started)["flood"] == pytest.approx(20, abs=1)


def test_callers_of_one_job_each_pass_nobody_over(queue: Queue) -> None:
    expected = [queue.ask(f"once-{number}") for number in range(20)]
    for number in range(20, 120):
        expected.append(queue.ask(f"once-{number}"))
        assert queue.pop() == [expected.pop(0)]


def test_interactive_always_goes_before_batch(queue: Queue) -> None:
    batch = [queue.ask("b", cost=0.001, priority="batch", model=model) for model in ("tiny", "other")]
    interactive = [queue.ask("a", cost=1000.0, model=model) for model in ("tiny", "other", "tiny")]
    assert queue.pop(10, ("other", "tiny")) == [*interactive, *batch]


def test_batches_of_one_caller_share_too(queue: Queue) -> None:
    for flow in ("atlas", "other"):
        for _ in range(20):
            queue.ask("a", priority="batch", flow=flow)
    assert sorted(queue.pop(20)) == [*range(10), *range(20, 30)]


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_holds_whatever_else_happens(queue: Queue, redis: Redis, store: Store, seed: int) -> None:
    """All workers serve all models; callers submit, cancel and get back what they like."""
    chance, jobs, models = random.Random(seed), Jobs(redis, store), ("m0", "m1", "m2")
    costs, running, back, checked = [0.1, 1.0, 6.4, 50.0], list[int](), set[int](), 0
    for _ in range(120):
        act = chance.random()
        if act < 0.4:
            for _ in range(chance.choice([1, 1, 5, 30])):
                queue.ask(f"c{chance.randrange(5)}", chance.choice(costs), chance.choice(models))
        elif act < 0.75:
            running += queue.pop(chance.randint(1, 4), models)
        elif act < 0.83 and running:
            returned = running.pop(chance.randrange(len(running)))
            queue.ready.put_back([job_id(returned)])
            back.add(returned)  # it is at the front, and counts for nobody
        elif act < 0.9 and queue.callers:
            jobs.cancel(job_id(chance.randrange(len(queue.callers))))
        else:
            newcomer = queue.ask(f"new-{checked}", chance.choice(costs), chance.choice(models))
            before = [number for (number,) in iter(lambda: queue.pop(1, models), [newcomer])]
            others = Counter(queue.callers[number] for number in before if number not in back)
            assert set(others.values()) <= {1}
            running += [*before, newcomer]
            checked += 1
    assert checked > 5


# -- several models ------------------------------------------------------------------------------------------


def flooded(queue: Queue) -> Iterator[str]:
    """Model `slow` has fallen far behind: its worker is slow, those of `quick` are not. The callers."""
    for _ in range(100):
        queue.ask("flood", model="slow")
    for _ in range(200):
        queue.ask("busy", model="quick")
    queue.pop(180, ("quick",))
    queue.pop(3, ("slow",))
    yield from ("flood", "busy")


def test_a_worker_takes_what_it_serves_and_nothing_else(queue: Queue) -> None:
    here = [queue.ask("a", model="here") for _ in range(3)]
    there = [queue.ask("a", model="there") for _ in range(3)]
    assert queue.pop(10, ("there", "nowhere")) == there
    assert queue.pop(10, ("there", "nowhere")) == []
    assert queue.pop(10, ("here",)) == here
    assert queue.pop(10, ()) == []


def test_where_a_model_fell_behind_a_newcomer_still_waits_for_one(queue: Queue) -> None:
    for caller in flooded(queue):
        queue.ask(f"new-{caller}", model="slow")
    assert set(queue.started(3, ("slow",))) == {"flood", "new-flood", "new-busy"}


def test_where_a_model_fell_behind_shares_are_kept(queue: Queue) -> None:
    list(flooded(queue))
    for _ in range(10):
        queue.ask("other", model="slow")
        queue.ask("flood", model="slow")  # behind its own, not in the place of newcomers
    started = queue.started(20, ("slow",))
    assert Counter(started) == {"other": 10, "flood": 10}


def test_a_model_that_fell_behind_does_not_hold_up_another_on_the_same_worker(queue: Queue) -> None:
    list(flooded(queue))
    queue.ask("new", model="quick")
    assert "new" in queue.started(3, ("slow", "quick"))


def test_one_caller_on_many_models_has_one_share(queue: Queue) -> None:
    models = tuple(f"m{number}" for number in range(20))
    for _ in range(5):
        for model in models:
            queue.ask("wide", model=model)
    queue.pop(3, models)
    for _ in range(10):
        queue.ask("narrow", model="m3")
    assert Counter(queue.started(20, models)) == {"narrow": 10, "wide": 10}


# -- what comes back, and what goes away ---------------------------------------------------------------------


def test_what_was_put_back_is_next(queue: Queue) -> None:
    first, *_ = [queue.ask("a") for _ in range(5)]
    assert queue.pop() == [first]
    for caller in ("b", "c"):
        queue.ask(caller)
    queue.pop(2)
    assert queue.ready.put_back([job_id(first)]) == 1
    queue.ask("d")
    assert queue.pop() == [first]


def test_what_was_put_back_into_an_empty_queue_goes_before_newcomers_and_delays_none(queue: Queue) -> None:
    first = queue.ask("a", cost=1.0)
    for _ in range(50):
        queue.ask("b", model="other")
    queue.pop(1)
    queue.pop(40, ("other",))
    queue.ready.put_back([job_id(first)])
    for _ in range(5):
        queue.ask("c")
    assert queue.started(7, ("tiny", "other")) == ["a", "c", "b", "c", "b", "c", "b"]


def test_what_was_put_back_holds_up_none_of_its_model(queue: Queue) -> None:
    first, *_ = [queue.ask("a") for _ in range(2)]
    queue.pop()
    for _ in range(50):
        queue.ask("b", model="other")
    queue.pop(40, ("other",))
    queue.ask("c")
    queue.ready.put_back([job_id(first)])
    queue.ask("d")
    assert queue.started(4, ("tiny", "other")) == ["a", "a", "c", "d"]


def test_a_caller_who_canceled_all_owes_nothing_for_it(queue: Queue, redis: Redis, store: Store) -> None:
    jobs = Jobs(redis, store)
    withdrawn = [queue.ask("a") for _ in range(100)]
    for _ in range(50):
        queue.ask("b")
    for number in withdrawn:
        jobs.cancel(job_id(number))
    queue.pop(3)
    queue.ask("a")
    assert queue.started(1) == ["a"]


def test_a_canceled_job_buys_no_better_turn(queue: Queue, redis: Redis, store: Store) -> None:
    jobs = Jobs(redis, store)
    queue.ask("a", cost=10.0)
    queue.pop()
    for _ in range(50):
        queue.ask("b")
    jobs.cancel(job_id(queue.ask("a", cost=0.001)))
    queue.ask("a")
    assert queue.started(10) == ["b"] * 10
    assert queue.started(2) == ["b", "a"]


def test_costs_are_those_of_the_questions(redis: Redis, store: Store) -> None:
    job, _ = submit(Jobs(redis, store), question(steps=50), MODEL)
    assert job.cost == pytest.approx(50 * 8 * 8 / 1e6)
