"""What happens to jobs, as it happens: one connection to Redis for all who follow one through this process.

A job's channel is subscribed to while somebody follows it. Each follower has a mailbox, in which newer
progress takes the place of older, so that one who reads slowly, or not at all, holds a handful of events and
misses no change of state. After a break of the connection every mailbox gets a `MISSED`, whereupon its owner
reads what it missed from the job's stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Literal

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

from workers.broker.keys import events_key
from workers.jobs.repository import Event

#: Something may have been missed: read the stream.
MISSED: Literal["gap"] = "gap"

#: Redis is asked this often whether it is there; one that says nothing for `SILENCE_S` is not.
PING_S, SILENCE_S = 2.0, 6.0
#: Between two tries to reach Redis.
RETRY_S = 0.25
#: Longest wait for a subscription.
SUBSCRIBE_S = 2.0
#: How often Redis is told which jobs are watched; less than half of `workers.jobs.events.WATCHED_S`.
WATCH_S = 4.0

#: Subscribed to all the time, so that the connection is one of a subscriber from its beginning.
_ALWAYS = b"proxygrad:events"

_log = logging.getLogger(__name__)


class Subscription:
    """What a follower of one job has not read yet."""

    def __init__(self, reader: EventSubscriber, job_id: str, kinds: Collection[str]) -> None:
        self.job_id = job_id
        self.kinds = kinds
        self._reader = reader
        self._waiting: deque[Event | Literal["gap"]] = deque()
        self._filled = asyncio.Event()

    def put(self, item: Event | Literal["gap"]) -> None:
        """Leave something. Of progress, previews and gaps only the last is kept."""
        kind = _kind(item)
        if kind not in (*self.kinds, "gap"):
            return
        if kind == "withdrawn" and item in self._waiting:
            return
        if kind not in ("state", "withdrawn"):
            kept = [each for each in self._waiting if _kind(each) != kind]
            if len(kept) != len(self._waiting):
                self._waiting = deque(kept)
        self._waiting.append(item)
        self._filled.set()

    def wake(self) -> None:
        """Let `next` return, though there is nothing."""
        self._filled.set()

    async def next(self, timeout_s: float) -> Event | Literal["gap"] | None:
        """The next thing, or None after ``timeout_s`` seconds, and when the process is to end."""
        if not self._waiting:
            self._filled.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Follow the job no longer. Harmless when done before."""
        self._reader.leave(self)


def _kind(item: Event | Literal["gap"]) -> str:
    return item if isinstance(item, str) else item.kind


class _Channel:
    """A subscription, and who shares it."""

    def __init__(self) -> None:
        self.mailboxes: set[Subscription] = set()
        self.ready = asyncio.Event()


class EventSubscriber:
    """The connection, on the event loop that made it. ``watch`` tells Redis which jobs are watched."""

    def __init__(self, url: str, watch: Callable[[list[str]], Awaitable[object]]) -> None:
        self._redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=SUBSCRIBE_S,
            socket_timeout=SILENCE_S,
            health_check_interval=0,
        )
        self._watch = watch
        self._channels: dict[bytes, _Channel] = {}
        self._changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self._tasks = [self.loop.create_task(self._run()), self.loop.create_task(self._renew())]
        self._trouble = ""

    async def follow(self, job_id: str, kinds: Collection[str]) -> Subscription:
        """A mailbox that hears of everything from now on. Raises `RedisError`."""
        mailbox, name = Subscription(self, job_id, kinds), events_key(job_id).encode()
        channel = self._channels.setdefault(name, _Channel())
        channel.mailboxes.add(mailbox)
        self._changed.set()
        try:
            async with asyncio.timeout(SUBSCRIBE_S):
                await channel.ready.wait()
        except TimeoutError:
            mailbox.close()
            raise RedisTimeout(f"Redis did not subscribe within {SUBSCRIBE_S:g} s") from None
        except BaseException:
            mailbox.close()
            raise
        return mailbox

    def leave(self, mailbox: Subscription) -> None:
        """Take a mailbox away, and with the last its channel."""
        name = events_key(mailbox.job_id).encode()
        channel = self._channels.get(name)
        if channel is None or mailbox not in channel.mailboxes:
            return
        channel.mailboxes.discard(mailbox)
        if not channel.mailboxes:
            del self._channels[name]
            self._changed.set()

    @property
    def mailboxes(self) -> list[Subscription]:
        """All of them."""
        channels = list(self._channels.values())  # in one step: another thread may ask
        return [mailbox for channel in channels for mailbox in list(channel.mailboxes)]

    def stop(self) -> None:
        """End the tasks, and with them the connection; wake whoever waits."""
        for task in self._tasks:
            task.cancel()
        for mailbox in self.mailboxes:
            mailbox.wake()

    async def _run(self) -> None:
        """Connect, and connect again, until canceled."""
        try:
            while True:
                _check_canceled()
                try:
                    async with self._redis.pubsub() as pubsub:
                        await pubsub.subscribe(_ALWAYS)
                        await self._serve(pubsub)
                except Exception as error:  # whatever it is: nobody else would connect again
                    self._complain(error)
                self._lose()
                await asyncio.sleep(RETRY_S)
        finally:
            await self._redis.aclose()

    async def _serve(self, pubsub: PubSub) -> None:
        """Hear and ask on one connection, until one of them fails; raises what it failed with."""
        self._changed.set()
        halves = [asyncio.ensure_future(half) for half in (self._hear(pubsub), self._ask(pubsub))]
        try:
            done, _ = await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
            for half in done:
                half.result()
        finally:
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)

    async def _hear(self, pubsub: PubSub) -> None:
        while True:
            _check_canceled()
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                raise RedisConnectionError("Redis says nothing on the connection of the events")
            self._take(message)

    async def _ask(self, pubsub: PubSub) -> None:
        """Subscribe to what is wanted, and no more; and ask whether Redis is there."""
        subscribed: dict[bytes, _Channel] = {}
        while True:
            _check_canceled()
            try:
                async with asyncio.timeout(PING_S):
                    await self._changed.wait()
            except TimeoutError:
                await pubsub.ping()
                continue
            self._changed.clear()
            wanted = dict(self._channels)
            # Also what was left and is followed again since the last round: who follows waits for the answer.
            if new := [name for name, channel in wanted.items() if subscribed.get(name) is not channel]:
                await pubsub.subscribe(*new)
            if old := subscribed.keys() - wanted.keys():
                await pubsub.unsubscribe(*old)
            subscribed = wanted

    def _take(self, message: dict[str, Any]) -> None:
        channel = self._channels.get(message["channel"]) if message["channel"] else None
        if channel is None:
            self._trouble = ""
        elif message["type"] == "subscribe":
            if channel.ready.is_set():  # not for the first time: what came in between is not known
                self._tell(channel, MISSED)
            channel.ready.set()
        elif message["type"] == "message":
            self._tell(channel, Event.published(message["data"]))

    def _tell(self, channel: _Channel, item: Event | Literal["gap"]) -> None:
        for mailbox in channel.mailboxes:
            mailbox.put(item)

    def _lose(self) -> None:
        """The connection is gone: who waits for Redis may see for itself."""
        for channel in self._channels.values():
            self._tell(channel, MISSED)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            watched = sorted({each.job_id for each in self.mailboxes if "preview" in each.kinds})
            try:
                if watched:
                    await self._watch(watched)
            except Exception as error:
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Once for the same trouble."""
        if str(error) != self._trouble:
            _log.warning("the events of jobs are cut off: %s", error)
        self._trouble = str(error)


def _check_canceled() -> None:
    """Raise what a cancellation raises, where one got lost: Python 3.11's `wait_for` may swallow it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class EventHub:
    """Followers of jobs in this process. The reader starts with the first of them."""

    def __init__(self, url: str, watch: Callable[[list[str]], Awaitable[object]]) -> None:
        self._url = url
        self._watch = watch
        self._reader: EventSubscriber | None = None
        self.closing = False

    async def follow(self, job_id: str, kinds: Collection[str]) -> Subscription:
        """A mailbox for events of these kinds; to be closed. Raises `RedisError`."""
        reader = self._reader
        if reader is None or reader.loop is not asyncio.get_running_loop():
            reader = self._reader = EventSubscriber(self._url, self._watch)
        return await reader.follow(job_id, kinds)

    @property
    def followers(self) -> int:
        """How many there are. From any thread."""
        return 0 if self._reader is None else len(self._reader.mailboxes)

    def close(self) -> None:
        """Let all followers go. From any thread, and a signal's handler."""
        self.closing = True
        reader = self._reader
        if reader is not None and not reader.loop.is_closed():
            reader.loop.call_soon_threadsafe(reader.stop)
