"""Jobs put into the queue without the question behind them, many at a time."""

from __future__ import annotations

from redis import Redis

from proxygrad.protocol.requests import Priority
from proxygrad.spec import Spec
from workers.broker.pipeline import run_blocking
from workers.jobs import commands
from workers.jobs.commands import Submit
from workers.jobs.kinds.visualization import VISUALIZATION
from workers.jobs.repository import Limits
from workers.jobs.requests import Submission
from workers.queue.fair_queue import FairQueue

PLENTY = Limits(10**6, 10**6)


class Queue:
    """Submits jobs of a caller, a cost and a model, and pops them; names are numbers from 0."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._submit = Submit(redis)
        self.ready = FairQueue(redis)
        self.callers: list[str] = []

    def ask(
        self,
        caller: str,
        cost: float = 1.0,
        model: str = "tiny",
        priority: Priority = "interactive",
        flow: str | None = None,
        deadline_s: float | None = None,
    ) -> int:
        """Submit one job; its number."""
        number = len(self.callers)
        submission = self._submission(number, caller, cost, model, priority, flow, deadline_s)
        assert run_blocking(self._submit(submission, "submit", PLENTY), self._redis)[1]
        self.callers.append(caller)
        return number

    def _submission(
        self,
        number: int,
        caller: str,
        cost: float,
        model: str = "tiny",
        priority: Priority = "interactive",
        flow: str | None = None,
        deadline_s: float | None = None,
    ) -> Submission:
        return Submission(
            job_id=job_id(number),
            kind=VISUALIZATION,
            spec=Spec(model=model, layer="conv", unit=number),
            cost=cost,
            priority=priority,
            caller=caller,
            flow=flow,
            deadline_s=deadline_s,
        )

    def flood(self, caller: str, count: int, cost: float) -> None:
        """Submit ``count`` equal jobs, of which only the ids differ, a thousand at a time."""
        arguments = commands._arguments(self._submission(0, caller, cost), "submit", PLENTY, create=True)
        for begin in range(0, count, 1000):
            with self._redis.pipeline(transaction=False) as pipe:
                for _ in range(begin, min(begin + 1000, count)):
                    arguments[0] = job_id(len(self.callers))
                    self._submit._create.command(*arguments).send(pipe)
                    self.callers.append(caller)
                pipe.execute()

    def pop(self, count: int = 1, models: tuple[str, ...] = ("tiny",)) -> list[int]:
        """The next jobs' numbers."""
        return [int(name, 16) for name in self.ready.pop(models, count)]

    def started(self, count: int, models: tuple[str, ...] = ("tiny",)) -> list[str]:
        """Whose the next jobs are."""
        return [self.callers[number] for number in self.pop(count, models)]


def job_id(number: int) -> str:
    return f"{number:032x}"
