"""Callers: they ask, look, ask again when they are refused or forgotten, and lose interest now and then."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError

from proxygrad.client import Client, Refused, ServiceUnreachable
from proxygrad.errors import ProxyGradError
from proxygrad.protocol.requests import VisualizationRequest
from proxygrad.spec import ModelInfo
from tests.chaos.book import Book
from tests.chaos.plan import Question
from tests.support.job_calls import submit
from workers.broker import keys
from workers.fleet import catalog
from workers.jobs.kinds.visualization import VISUALIZATION, image_name
from workers.jobs.repository import Jobs
from workers.storage.store import Store

ROUND_S = 0.1
#: Between two looks at what was asked, and after a refusal.
LOOK_S = 1.0
REFUSED_S = 0.5
#: Over HTTP each look is a request.
LOOKS = 10

ENDED = ("succeeded", "failed", "canceled")


class Away(Exception):
    """The service could not answer now; its only argument is a code."""


class Desk(Protocol):
    """Where one asks. All raise `Away`."""

    def ask(self, question: Question) -> str:
        """The id."""
        ...

    def look(self, job_ids: list[str]) -> dict[str, str | None]:
        """States of some of these, None for what nobody knows."""
        ...

    def cancel(self, job_id: str) -> str | None:
        """The state then."""
        ...

    def mend(self, job_id: str, question: Question) -> None:
        """Fetch an image that is damaged, and ask for it again."""
        ...


class AtTheQueue:
    """As a program does that uses the queue by itself."""

    def __init__(self, redis: Redis, store: Store, versions: Sequence[ModelInfo]) -> None:
        self._redis = redis
        self._jobs = Jobs(redis, store)
        self._versions = versions
        self._foreign = versions[0].model_copy(update={"digest": "0" * 64})

    def ask(self, question: Question) -> str:
        try:
            model = self._foreign if question.kind == "foreign" else self._served(question)
            return submit(self._jobs, _visualization(question), model, caller=question.caller)[0].id
        except RedisError as error:
            raise Away(type(error).__name__) from error

    def _served(self, question: Question) -> ModelInfo:
        served = catalog.served(self._redis).get(question.request.model)
        if served is None or served.info is None:
            raise Away("model_unavailable")
        return served.info

    def mend(self, job_id: str, question: Question) -> None:
        try:
            self._jobs.stored(job_id)
            self._jobs.artifact(VISUALIZATION, job_id, image_name(0))
            request = _visualization(question)
            (model,) = [each for each in self._versions if request.spec.identity(each) == job_id]
            submit(self._jobs, request, model, caller=question.caller)
        except RedisError as error:
            raise Away(type(error).__name__) from error

    def look(self, job_ids: list[str]) -> dict[str, str | None]:
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in job_ids:
                    pipe.hget(keys.job_key(job_id), "state")
                states = [None if state is None else state.decode() for state in pipe.execute()]
            seen = dict(zip(job_ids, states, strict=True))
            for job_id in [job_id for job_id, state in seen.items() if state is None]:
                stored = self._jobs.stored(job_id)
                seen[job_id] = None if stored is None else stored.state
        except RedisError as error:
            raise Away(type(error).__name__) from error
        return seen

    def cancel(self, job_id: str) -> str | None:
        try:
            job = self._jobs.cancel(job_id)
        except RedisError as error:
            raise Away(type(error).__name__) from error
        return None if job is None else job.state


def _visualization(question: Question) -> VisualizationRequest:
    """The request, of callers that ask for nothing else."""
    assert isinstance(question.request, VisualizationRequest)
    return question.request


class OverHttp:
    """As anybody does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._attributions: set[str] = set()

    def ask(self, question: Question) -> str:
        fields = question.request.model_dump(mode="json", exclude_unset=True)
        try:
            if isinstance(question.request, VisualizationRequest):
                return self._client.visualize(**fields).id
            image = self._client.get(question.image_of) if question.image_of else question.picture
            job_id = self._client.attribute(image, **fields).id
        except (Refused, ServiceUnreachable) as error:
            raise Away(error.code) from error
        self._attributions.add(job_id)
        return job_id

    def look(self, job_ids: list[str]) -> dict[str, str | None]:
        seen: dict[str, str | None] = {}
        for job_id in job_ids[:LOOKS]:
            get = self._client.get_attribution if job_id in self._attributions else self._client.get
            try:
                seen[job_id] = get(job_id, wait_s=0 if seen else LOOK_S).state
            except (Refused, ServiceUnreachable) as error:
                if error.code not in ("unknown_visualization", "unknown_attribution"):
                    raise Away(error.code) from error
                seen[job_id] = None
        return seen

    def cancel(self, job_id: str) -> str | None:
        raise NotImplementedError("there is no canceling over HTTP yet")

    def mend(self, job_id: str, question: Question) -> None:
        raise NotImplementedError("answers of these callers are not damaged")


@dataclass
class _Wish:
    job_id: str
    at_s: float


class Caller(threading.Thread):
    """Asks its ``questions`` in their time, until all have ended or ``over`` is set."""

    def __init__(
        self, name: str, desk: Desk, questions: Iterable[Question], book: Book, over: threading.Event
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._desk = desk
        self._book = book
        self._over = over
        self._planned = deque(questions)
        self._open: dict[str, Question] = {}
        self._wishes: list[_Wish] = []
        self._image_of = ""  # the visualization that succeeded last
        self._began_s = self._look_s = self._pause_until_s = 0.0

    @property
    def done(self) -> bool:
        """Whether all was asked, and has ended."""
        return not self._planned and not self._open

    def run(self) -> None:
        self._began_s = time.monotonic()
        while not self._over.wait(ROUND_S):
            if time.monotonic() < self._pause_until_s:
                continue
            try:
                self._round()
            except Away as away:
                self._book.refuse(str(away))
                self._pause_until_s = time.monotonic() + REFUSED_S
            except Exception as error:
                code = error.code if isinstance(error, ProxyGradError) else type(error).__name__
                self._book.complain(f"{self.name} was answered with {code}: {error}")
                self._pause_until_s = time.monotonic() + REFUSED_S

    def _round(self) -> None:
        now_s = time.monotonic()
        while self._planned and self._planned[0].at_s <= now_s - self._began_s:
            self._planned[0] = self._chosen(self._planned[0])
            self._ask(self._planned[0])
            self._planned.popleft()
        for wish in [wish for wish in self._wishes if wish.at_s <= now_s]:
            state = self._desk.cancel(wish.job_id)
            self._wishes.remove(wish)
            if state is not None:  # else the next look finds that it was forgotten
                self._book.cancel(wish.job_id, state, time.time())
        self._mend()
        if now_s >= self._look_s and self._open:
            self._look()
            self._look_s = time.monotonic() + LOOK_S

    def _chosen(self, question: Question) -> Question:
        """The question; of one about an image it is settled now, and stays so, which one."""
        if question.kind == "image" and not question.image_of:
            return replace(question, image_of=self._image_of)
        return question

    def _ask(self, question: Question) -> None:
        job_id = self._desk.ask(question)
        self._book.acknowledge(question, job_id, time.time())
        self._open[job_id] = question
        if question.cancel_after_s is not None:
            self._wishes.append(_Wish(job_id, time.monotonic() + question.cancel_after_s))

    def _mend(self) -> None:
        damaged = self._book.take_damaged(self.name)
        for number, account in enumerate(damaged):
            try:
                self._desk.mend(account.job_id, account.questions[0])
            except Away:
                self._book.to_mend += damaged[number:]
                raise
            account.told = ""
            self._open[account.job_id] = account.questions[0]

    def _look(self) -> None:
        for job_id, state in self._desk.look(list(self._open)).items():
            if state is None:
                self._book.forget(job_id)
                self._ask(self._open[job_id])
            elif state in ENDED:
                self._book.tell(job_id, state)
                question = self._open.pop(job_id)
                if state == "succeeded" and isinstance(question.request, VisualizationRequest):
                    self._image_of = job_id
            else:
                self._open[job_id] = self._open.pop(job_id)  # others come first next time
