"""The event hub: fans the events of jobs and batches out to all who follow them in this process.

One connection to Redis subscribes to the channels of what is followed. Each follower has a `Subscription`, in
which newer progress takes the place of older, so that one who reads slowly, or not at all, holds a handful of
events and misses no change of state. After a break of the connection every subscription gets a `MISSED`,
whereupon its owner reads what it missed from the job's stream.
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

#: An item of a subscription: events may have been missed; read the stream.
MISSED: Literal["gap"] = "gap"

#: Interval of pings. A connection without a reply for `SILENCE_S` is given up.
PING_S, SILENCE_S = 2.0, 6.0
#: Between two tries to reach Redis.
RETRY_S = 0.25
#: Longest wait for a subscription.
SUBSCRIBE_S = 2.0
#: How often the watches of previews are renewed; less than half of `workers.jobs.events.WATCHED_S`.
WATCH_S = 4.0

#: A channel that is always subscribed to, so that the connection is a subscriber's from its beginning.
_ALWAYS = b"proxygrad:events"

_log = logging.getLogger(__name__)


class Subscription:
    """The events of one job that its follower has not read yet."""

    def __init__(self, subscriber: EventSubscriber, job_id: str, kinds: Collection[str]) -> None:
        self.job_id = job_id
        self.kinds = kinds
        self._subscriber = subscriber
        self._waiting: deque[Event | Literal["gap"]] = deque()
        self._filled = asyncio.Event()

    def put(self, item: Event | Literal["gap"]) -> None:
        """Add an event. Of progress, previews and `MISSED` only the last one stays."""
        kind = _kind(item)
        if kind not in (*self.kinds, "gap"):
            return
        if kind == "withdrawn" and item in self._waiting:
            return
        if kind not in ("state", "withdrawn"):
            others = [each for each in self._waiting if _kind(each) != kind]
            if len(others) != len(self._waiting):
                self._waiting = deque(others)
        self._waiting.append(item)
        self._filled.set()

    def wake(self) -> None:
        """Let `next` return without an event."""
        self._filled.set()

    async def next(self, timeout_s: float) -> Event | Literal["gap"] | None:
        """The next event, or None after ``timeout_s`` seconds and when the process stops."""
        if not self._waiting:
            self._filled.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Stop following. Harmless when closed before."""
        self._subscriber.leave(self)


def _kind(item: Event | Literal["gap"]) -> str:
    return item if isinstance(item, str) else item.kind


class _Channel:
    """One channel of Redis, and the subscriptions that share it."""

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self.ready = asyncio.Event()

    def put(self, item: Event | Literal["gap"]) -> None:
        for subscription in self.subscriptions:
            subscription.put(item)


class EventSubscriber:
    """The connection to Redis, on the event loop that made it. ``watch`` requests previews of jobs."""

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
        self._last_error = ""

    async def follow(self, job_id: str, kinds: Collection[str]) -> Subscription:
        """A subscription to everything from now on. Raises `RedisError`."""
        subscription, name = Subscription(self, job_id, kinds), events_key(job_id).encode()
        channel = self._channels.setdefault(name, _Channel())
        channel.subscriptions.add(subscription)
        self._changed.set()
        try:
            async with asyncio.timeout(SUBSCRIBE_S):
                await channel.ready.wait()
        except TimeoutError:
            subscription.close()
            raise RedisTimeout(f"Redis did not subscribe within {SUBSCRIBE_S:g} s") from None
        except BaseException:
            subscription.close()
            raise
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription, and with the last one its channel."""
        name = events_key(subscription.job_id).encode()
        channel = self._channels.get(name)
        if channel is None or subscription not in channel.subscriptions:
            return
        channel.subscriptions.discard(subscription)
        if not channel.subscriptions:
            del self._channels[name]
            self._changed.set()

    @property
    def subscriptions(self) -> list[Subscription]:
        """All of them."""
        channels = list(self._channels.values())  # in one step: another thread may read it
        return [each for channel in channels for each in list(channel.subscriptions)]

    def stop(self) -> None:
        """End the tasks, and with them the connection; wake all followers."""
        for task in self._tasks:
            task.cancel()
        for subscription in self.subscriptions:
            subscription.wake()

    async def _run(self) -> None:
        """Connect, and connect again, until canceled."""
        try:
            while True:
                _check_canceled()
                try:
                    async with self._redis.pubsub() as pubsub:
                        await pubsub.subscribe(_ALWAYS)
                        await self._serve(pubsub)
                except Exception as error:  # whatever it is: nothing else would connect again
                    self._warn(error)
                self._miss_all()
                await asyncio.sleep(RETRY_S)
        finally:
            await self._redis.aclose()

    async def _serve(self, pubsub: PubSub) -> None:
        """Receive and subscribe on one connection until one of them fails; raises that failure."""
        self._changed.set()
        halves = [asyncio.ensure_future(half) for half in (self._receive(pubsub), self._subscribe(pubsub))]
        try:
            done, _ = await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
            for half in done:
                half.result()
        finally:
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)

    async def _receive(self, pubsub: PubSub) -> None:
        while True:
            _check_canceled()
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                raise RedisConnectionError("Redis sends nothing on the connection of the events")
            self._dispatch(message)

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Subscribe to the channels that are followed, and no others; ping in between."""
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
            followed = dict(self._channels)
            # Also what was left and followed again since the last round: its follower waits for the reply.
            if new := [name for name, channel in followed.items() if subscribed.get(name) is not channel]:
                await pubsub.subscribe(*new)
            if old := subscribed.keys() - followed.keys():
                await pubsub.unsubscribe(*old)
            subscribed = followed

    def _dispatch(self, message: dict[str, Any]) -> None:
        channel = self._channels.get(message["channel"]) if message["channel"] else None
        if channel is None:
            self._last_error = ""
        elif message["type"] == "subscribe":
            if channel.ready.is_set():  # not for the first time: events in between may be lost
                channel.put(MISSED)
            channel.ready.set()
        elif message["type"] == "message":
            try:
                channel.put(Event.published(message["data"]))
            except ValueError:  # from somebody else; the streams of all others share the connection
                _log.warning("on %s came what is no event: %.100r", message["channel"], message["data"])

    def _miss_all(self) -> None:
        """The connection is gone: followers read the stream themselves."""
        for channel in self._channels.values():
            channel.put(MISSED)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            watched = sorted({each.job_id for each in self.subscriptions if "preview" in each.kinds})
            try:
                if watched:
                    await self._watch(watched)
            except Exception as error:
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        """Log an error, once while it stays the same."""
        if str(error) != self._last_error:
            _log.warning("the events of jobs are cut off: %s", error)
        self._last_error = str(error)


def _check_canceled() -> None:
    """Raise what a cancellation raises, where one got lost: Python 3.11's `wait_for` may swallow it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class EventHub:
    """All followers in this process. The connection is opened for the first of them."""

    def __init__(self, url: str, watch: Callable[[list[str]], Awaitable[object]]) -> None:
        self._url = url
        self._watch = watch
        self._subscriber: EventSubscriber | None = None
        self.closing = False

    async def follow(self, job_id: str, kinds: Collection[str]) -> Subscription:
        """A subscription to events of these kinds; close it. Raises `RedisError`."""
        subscriber = self._subscriber
        if subscriber is None or subscriber.loop is not asyncio.get_running_loop():
            subscriber = self._subscriber = EventSubscriber(self._url, self._watch)
        return await subscriber.follow(job_id, kinds)

    @property
    def followers(self) -> int:
        """Number of open subscriptions. From any thread."""
        return 0 if self._subscriber is None else len(self._subscriber.subscriptions)

    def close(self) -> None:
        """Let all followers go. From any thread, and a signal's handler."""
        self.closing = True
        subscriber = self._subscriber
        if subscriber is not None and not subscriber.loop.is_closed():
            subscriber.loop.call_soon_threadsafe(subscriber.stop)
