"""The listener: one thread and one Redis connection for all messages to a worker process.

It receives wake-ups, ids of jobs that are to stop, and RQ's commands for any slot of the process. A message
may get lost; then the dispatcher's next look and the next heartbeat find the same. As long as the connection
stands, Redis knows that the process lives (`workers.queue.janitor`).
"""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import redis
from redis.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from workers.broker import keys, rq_names
from workers.execution.context import WorkerContext
from workers.process.slots import SlotPool
from workers.queue.janitor import Presence

#: How often it looks whether it shall end.
LOOK_S = 1.0
#: Between two tries to reach Redis.
RETRY_S = 0.2
#: A connection that leaves so many health checks unanswered is given up.
MOST_UNANSWERED = 2

_log = logging.getLogger(__name__)


class Listener(threading.Thread):
    """Passes messages on until ``ended`` is set. ``client`` should not retry: that is done here."""

    def __init__(
        self,
        client: redis.Redis,
        runtime: WorkerContext,
        slots: SlotPool,
        ended: threading.Event,
        look_s: float = LOOK_S,
    ) -> None:
        super().__init__(name="listener", daemon=True)
        self._client = client
        self._runtime = runtime
        self._slots = slots
        self._ended = ended
        self._look_s = look_s
        self._presence = Presence(runtime.redis)
        self._presence_channel = keys.presence_channel(runtime.worker)
        self._trouble = ""

    def run(self) -> None:
        """Listen until the process ends; connect again after an error."""
        while not self._ended.is_set():
            try:
                with PubSub(self._client.connection_pool) as pubsub:
                    pubsub.subscribe(keys.WAKE_CHANNEL, keys.CANCEL_CHANNEL, keys.BATCHES_CHANNEL)
                    pubsub.psubscribe(f"{rq_names.COMMAND_CHANNEL_PREFIX}{self._runtime.worker}.*")
                    pubsub.subscribe(self._presence_channel)
                    self._listen(pubsub)
            except Exception as error:
                self._complain(error)
                self._ended.wait(RETRY_S)

    def _listen(self, pubsub: PubSub) -> None:
        while not self._ended.is_set():
            message = pubsub.get_message(timeout=self._look_s)
            if message is not None:
                self._hear(message)
            if pubsub.health_check_response_counter > MOST_UNANSWERED:
                raise RedisConnectionError("Redis does not answer on the listener's connection")

    def _hear(self, message: dict[str, Any]) -> None:
        channel, data = message["channel"].decode(), message["data"]
        if message["type"] not in PubSub.PUBLISH_MESSAGE_TYPES:
            self._trouble = ""
            self._slots.dispatcher.wake()  # from now on it hears; what was said before it has missed
            if channel == self._presence_channel:
                self._presence.enlist(self._runtime.worker)
        elif channel == keys.WAKE_CHANNEL:
            self._slots.dispatcher.wake(data.decode())
        elif channel == keys.BATCHES_CHANNEL:
            self._runtime.batches_told.set()
        elif channel == keys.CANCEL_CHANNEL:
            for run in self._slots.assignments:
                if run.run.job_id == data.decode():
                    run.cancel()
        else:
            self._obey(channel.removeprefix(rq_names.COMMAND_CHANNEL_PREFIX), data)

    def _obey(self, slot: str, data: bytes) -> None:
        """A command of RQ for one slot. `shutdown` is for the process, as it is with RQ."""
        try:
            order = json.loads(data)
            command, job_id = order["command"], order.get("job_id")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            _log.warning("slot %s was sent a command that is none: %.100r", slot, data)
            return
        if command == "shutdown":
            _log.info("worker %s was told to stop, by RQ's command to %s", self._runtime.worker, slot)
            self._runtime.drain.begin()
        elif command in ("stop-job", "kill-horse"):
            run = self._slots.assignment(slot)
            if run is None or (command == "stop-job" and run.run.job_id != job_id):
                _log.info("slot %s does not run what RQ's command %s is about", slot, command)
                return
            try:
                self._runtime.jobs.cancel(run.run.job_id)
            except RedisError as error:
                _log.warning("job %s is not stopped: %s", run.run.job_id, error)

    def _complain(self, error: Exception) -> None:
        """Once for the same trouble; at the end the connection is closed under it."""
        if str(error) != self._trouble and not self._ended.is_set():
            _log.warning("listener: %s", error)
        self._trouble = str(error)
