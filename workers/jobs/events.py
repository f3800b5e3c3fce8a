"""Events of a job: every change of its state, and its progress, in order.

The script that makes a change also writes the event into the job's stream and publishes it on a channel of
the same name, in one step (``workers/lua/lib/events.lua``). The stream is for a client that comes late or was
cut off: the last few hundred events, until an hour after the end. Previews are published alone, and only
while somebody watches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import redis

from workers.broker import keys
from workers.broker.limits import WATCHED_S

#: `withdrawn` is for the caller that it names alone.
Kind = Literal["state", "progress", "preview", "withdrawn"]

_ENDED = ('{"state":"succeeded"', '{"state":"failed"', '{"state":"canceled"')
#: Two numbers of 64 bits, of which Redis takes no larger one; in 19 digits there are none too large.
_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


@dataclass(frozen=True)
class Event:
    """One event of a job. ``data`` is JSON; ``event_id`` is its place in the stream, where it has one."""

    event_id: str | None
    kind: Kind
    data: str

    @property
    def final(self) -> bool:
        """Whether it says that the job has ended."""
        return self.kind == "state" and self.data.startswith(_ENDED)

    @classmethod
    def published(cls, message: bytes) -> Event:
        """From what came through the channel. Raises `ValueError` for what is no event."""
        event_id, kind, data = message.decode().split(" ", 2)
        if event_id != "-" and not is_event_id(event_id):
            raise ValueError(f"{event_id[:100]!r} is not the id of an event")
        return cls(None if event_id == "-" else event_id, cast(Kind, kind), data)


def state_event(state: str, problem: str | None, event_id: str | None) -> Event:
    """The event that says how a job stands; ``problem`` is JSON."""
    return Event(event_id, "state", f'{{"state":{json.dumps(state)},"problem":{problem or "null"}}}')


def progress_event(step: int, steps: int, activation: float | None, event_id: str | None) -> Event:
    """The event that says how far a job has come."""
    fields = {"step": step, "steps": steps, "activation": activation}
    return Event(event_id, "progress", json.dumps(fields, separators=(",", ":")))


def is_event_id(text: str) -> bool:
    """Whether an event may have this id."""
    return _ID.fullmatch(text) is not None


def is_after(event_id: str, other: str) -> bool:
    """Whether one event came after the other."""
    return _order(event_id) > _order(other)


def _order(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))


class Events:
    """Reads streams. Safe to share between threads."""

    #: Where a stream begins.
    START = "0-0"

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis

    def read(self, job_id: str, after: str | None) -> tuple[dict[bytes, bytes], str, list[Event]]:
        """In one step: the fields of the job's record, the id of its last event, and the events since.

        ``after``: the id of the last event that the client has; None: no earlier events.
        """
        key = keys.events_key(job_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.job_key(job_id))
            pipe.xrevrange(key, count=1)
            if after is not None:
                pipe.xrange(key, min=f"({after}")
            fields, last, *missed = pipe.execute()
        entries = missed[0] if missed else []
        events = [
            Event(event_id.decode(), entry[b"event"].decode(), entry[b"data"].decode())
            for event_id, entry in entries
            if {b"event", b"data"} <= entry.keys()
        ]
        return fields, last[0][0].decode() if last else self.START, events

    def watch(self, job_ids: Sequence[str]) -> None:
        """Somebody wants to see these jobs: for `WATCHED_S` seconds from now."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.set(keys.watched_key(job_id), 1, ex=WATCHED_S)
            pipe.execute()
