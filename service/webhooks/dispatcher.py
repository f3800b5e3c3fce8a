"""The dispatcher of webhooks: claims due deliveries and attempts them, in the background of every gateway.

Each attempt is bounded in time, and each receiver in attempts at once, so that a slow one holds up no other.
The deliveries of a gateway that was killed are claimed by another one when their leases end.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import RedisError

from service.addresses import Network
from service.webhooks.events import payload
from service.webhooks.sender import ATTEMPT_S, DeliveryOutcome, Sender
from service.webhooks.signing import Signer
from service.webhooks.urls import AllowedHosts, BadURL
from workers.webhooks import Deliveries, DeliveryRecord

#: Seconds between an attempt and the next, as Standard Webhooks suggests: three days in all.
SCHEDULE_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: Intervals are drawn this much longer at most, so that what failed together does not come back together.
JITTER = 0.1
#: A receiver that says when to come back is believed up to a day.
MOST_RETRY_AFTER_S = 86_400.0
#: Attempts under way in one process, and to one receiver.
MOST, MOST_EACH = 32, 4
#: Between two looks for what is due, each one short command.
IDLE_S = 1.0
#: A claim outlives the longest attempt by far.
LEASE_S = 3 * ATTEMPT_S
#: Attempts that are under way when the process is to end have so long.
GRACE_S = 2.0

_log = logging.getLogger(__name__)

#: Runs a blocking function in a thread, as `Backend.call`.
Call = Callable[..., Awaitable[Any]]
#: The time on Redis' clock, in seconds since 1970.
Now = Callable[[], Awaitable[float]]


class Deliverer:
    """Delivers in one process, on one event loop. ``schedule_s``: seconds between attempts.

    ``public_url``: where receivers find this service; empty where that is not known.
    """

    def __init__(  # noqa: PLR0913, each of them named
        self,
        deliveries: Deliveries,
        sender: Sender,
        receivers: AllowedHosts,
        signer: Signer,
        now: Now,
        call: Call = asyncio.to_thread,
        *,
        schedule_s: Sequence[float] = SCHEDULE_S,
        lease_s: float = LEASE_S,
        public_url: str = "",
    ) -> None:
        self._public_url = public_url
        self._deliveries = deliveries
        self._sender = sender
        self._receivers = receivers
        self._signer = signer
        self._now = now
        self._call = call
        self._schedule_s = schedule_s
        self._lease_s = lease_s
        self._busy: Counter[str] = Counter()
        self._attempts: set[asyncio.Task[None]] = set()
        self._free = asyncio.Event()
        self._trouble = False

    async def run(self) -> None:
        """Deliver until canceled."""
        try:
            while True:
                self._free.clear()
                if not await self._begin():
                    try:
                        async with asyncio.timeout(IDLE_S):
                            await self._free.wait()
                    except TimeoutError:
                        pass
        finally:
            if self._attempts:
                _, left = await asyncio.wait(self._attempts, timeout=GRACE_S)
                for attempt in left:
                    attempt.cancel()
            await self._sender.aclose()

    async def _begin(self) -> int:
        """Begin the attempts that are due, as many as there is room for; their number."""
        room = MOST - len(self._attempts)
        if not room:
            return 0
        try:
            claimed: list[DeliveryRecord] = await self._call(
                self._deliveries.claim, room, MOST_EACH, self._lease_s, dict(self._busy)
            )
        except (RedisError, OSError) as error:
            if not self._trouble:
                _log.warning("webhooks wait until Redis answers: %s", error)
            self._trouble = True
            return 0
        except Exception:
            _log.exception("due webhooks could not be claimed")
            return 0
        self._trouble = False
        for delivery in claimed:
            self._busy[delivery.receiver] += 1
            attempt = asyncio.create_task(self._attempt(delivery))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)
        return len(claimed)

    async def _attempt(self, delivery: DeliveryRecord) -> None:
        try:
            try:
                answer = await self._post(delivery)
            except Exception:
                _log.exception("delivery %s failed here", delivery.id)
                answer = DeliveryOutcome(error="the gateway failed at it; its log says how")
            await self._settle(delivery, answer)
        except (RedisError, OSError) as error:
            # It is delivered again when the lease ends: at least once.
            _log.warning("what came of delivery %s could not be noted: %s", delivery.id, error)
        finally:
            self._busy[delivery.receiver] -= 1
            if not self._busy[delivery.receiver]:
                del self._busy[delivery.receiver]
            self._free.set()

    async def _post(self, delivery: DeliveryRecord) -> DeliveryOutcome:
        try:
            place = self._receivers.place(delivery.url)
        except BadURL:
            return DeliveryOutcome(error="the operator does not allow this host any more")
        body, now_s = payload(delivery, self._public_url), await self._now()
        headers = self._signer.headers(delivery.caller, delivery.id, body, now_s)
        return await self._sender.post(place, headers, body.encode())

    async def _settle(self, delivery: DeliveryRecord, answer: DeliveryOutcome) -> None:
        if answer.status is not None and 200 <= answer.status < 300:
            await self._call(self._deliveries.settle, delivery, "delivered", answer.status, None)
        elif answer.status == 410:
            await self._call(self._deliveries.settle, delivery, "gone", answer.status, None)
        elif delivery.tried > len(self._schedule_s):
            _log.warning(
                "webhook exhausted: delivery %s of %s %s to %s after %d attempts: %s",
                *(delivery.id, delivery.kind, delivery.subject, delivery.receiver, delivery.attempts),
                answer.error or f"status {answer.status}",
            )
            await self._call(self._deliveries.settle, delivery, "exhausted", answer.status, answer.error)
        else:
            wait_s = self._schedule_s[delivery.tried - 1] * random.uniform(1, 1 + JITTER)
            requested_s = min(answer.retry_after_s or 0, MOST_RETRY_AFTER_S)
            retry = (answer.status, answer.error, max(wait_s, requested_s))
            await self._call(self._deliveries.settle, delivery, "pending", *retry)


@asynccontextmanager
async def delivering(
    deliveries: Deliveries,
    allowed: AllowedHosts,
    private: Sequence[Network],
    signer: Signer,
    now: Now,
    call: Call,
    *,
    public_url: str = "",
) -> AsyncIterator[None]:
    """Deliver webhooks in the background, if the operator allows any host."""
    if not allowed.entries:
        yield
        return
    deliverer = Deliverer(deliveries, Sender(private), allowed, signer, now, call, public_url=public_url)
    task = asyncio.create_task(deliverer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
