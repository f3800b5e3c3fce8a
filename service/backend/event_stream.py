"""The server-sent events of one job for one caller: what to send, in which order, and when it is over.

The id of an event is its place in the job's Redis stream, so a client that was cut off goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from redis.exceptions import RedisError

from proxygrad.protocol.problems import Problem
from service.backend.event_hub import MISSED, RETRY_S, Subscription
from service.backend.resources.session import JobSession
from workers.errors import StorageError
from workers.jobs.repository import Event, Job, is_after, progress_event, state_event

#: A comment is sent after so many seconds without an event, so that proxies keep the connection.
HEARTBEAT_S = 15.0
#: How long a browser waits before it connects again, in milliseconds.
RECONNECT_MS = 2000


class EventStream:
    """The events of a job after the event ``after``; None: from its state now on."""

    def __init__(self, session: JobSession, job_id: str, after: str | None) -> None:
        self.over = self._lost = False
        self._session = session
        self._job_id = job_id
        self._after = after
        self._state = ""

    async def catch_up(self) -> list[Event]:
        """The events to send now: to a new client the state of the job, else what it missed.

        Raises `RedisError`.
        """
        job, last, missed = await self._session.events_since(self._job_id, self._after)
        if job is None:
            self.over = self._lost = True
            return []
        before, self._after = self._after, last
        self.over = job.ended
        events = _snapshot(job, last) if before is None else self._missed(job, missed, before != last)
        for event in events:
            self._note_state(event)
        return events

    async def lines(self, first: list[Event], subscription: Subscription) -> AsyncIterator[str]:
        """The text of the stream: the events ``first``, then those of the subscription, until it is over."""
        yield f"retry: {RECONNECT_MS}\n\n"
        for event in first:
            yield _frame(event)
        while not self.over and not self._session.backend.events.closing:
            item = await subscription.next(HEARTBEAT_S)
            if item is None or item == MISSED:
                for text in await self._look(item):
                    yield text
            elif item.kind == "withdrawn":
                if (end := self._withdrawal(item)) is not None:
                    yield _frame(end)
            elif self._is_new(item):
                yield _frame(item)

    async def _look(self, wake: Literal["gap"] | None) -> list[str]:
        """What was missed, by the record and the stream. Also after a silence: the job may be gone."""
        try:
            missed = await self.catch_up()
        except (RedisError, StorageError):
            await asyncio.sleep(RETRY_S)  # there is another gap as soon as Redis is back
            missed = []
        if self._lost:
            missed = [self._loss()]
        silence = [": nothing new\n\n"] if wake is None else []
        return [_frame(event) for event in missed] or silence

    def _missed(self, job: Job, missed: list[Event], moved: bool) -> list[Event]:
        """Every change of state, and the last progress. ``moved``: whether the stream has any new event."""
        now = state_event(job.state, _problem(job), None)
        progress = [event for event in missed if event.kind == "progress"][-1:]
        events = [event for event in missed if event.kind == "state" or event in progress]
        # The stream may have lost what lies far back, and a job may end for this caller alone.
        if events and now.data != self._state and not any(event.kind == "state" for event in events):
            events.insert(0, now)
        if job.ended and (events or moved) and not (events and events[-1].final):
            events.append(state_event(job.state, _problem(job), self._after))
        return events

    def _withdrawal(self, event: Event) -> Event | None:
        """The last event where the caller itself has withdrawn: the job goes on for others."""
        if event.data != self._session.caller.name:
            return None
        self.over = True
        return state_event("canceled", None, self._after)

    def _loss(self) -> Event:
        """The last event of a job that is gone: deleted, or lost with the data of Redis."""
        problem = self._session.resource.unknown_job(self._job_id)
        detail = f"{problem.detail} any more: it was deleted, or Redis lost its data; request it again"
        return state_event("failed", Problem(code=problem.code, detail=detail).model_dump_json(), None)

    def _is_new(self, event: Event) -> bool:
        """Whether the event was not sent yet; remembers it as sent."""
        if event.event_id is None:
            return True
        if self._after is not None and not is_after(event.event_id, self._after):
            return False
        self._after = event.event_id
        self.over = event.final
        self._note_state(event)
        return True

    def _note_state(self, event: Event) -> None:
        if event.kind == "state":
            self._state = event.data


def _snapshot(job: Job, last: str) -> list[Event]:
    """The state of the job, and its progress where it runs."""
    events = [state_event(job.state, _problem(job), last)]
    if job.state == "running" and job.step:
        events.append(progress_event(job.step, job.steps, job.activation, last))
    return events


def _problem(job: Job) -> str | None:
    return None if job.problem is None else job.problem.model_dump_json()


def _frame(event: Event) -> str:
    head = "" if event.event_id is None else f"id: {event.event_id}\n"
    return f"{head}event: {event.kind}\ndata: {event.data}\n\n"
