"""Who has room on a device: models that are loaded, in use or idle, and what leaves when more is wanted.

What is in use never leaves; of the rest the one that was wanted
longest ago goes first.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxygrad.networks.network import Network
from workers.jobs.job import Problem

#: How long a model waits for one in use to become idle, before it is loaded beyond the budget.
PATIENCE_S = 3.0

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class CacheEntry:
    """Where a model stands when it is loaded. Whoever loads it holds ``loading``.

    ``size_bytes``: what it takes, as far as is known; counted while it is there or ``arriving``. ``users``:
    how many will not let it go. ``wanted``: the number of its last use. ``stays``: it would not come back the
    same. ``problem``: why it could not be loaded, ``tried_s`` when, in seconds of `time.monotonic`.
    """

    name: str
    network: Network | None = None
    size_bytes: int = 0
    arriving: bool = False
    users: int = 0
    wanted: int = 0
    stays: bool = False
    problem: Problem | None = None
    tried_s: float = -math.inf
    loading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def taken_bytes(self) -> int:
        """What it takes now."""
        return self.size_bytes if self.network is not None or self.arriving else 0

    @property
    def idle(self) -> bool:
        """Whether it may leave."""
        return self.network is not None and not (self.users or self.stays)


class MemoryBudget:
    """The places of all models, which share ``budget_bytes``. Safe to share between threads."""

    def __init__(self, names: Iterable[str], budget_bytes: int) -> None:
        self._places = {name: CacheEntry(name) for name in names}
        self._budget_bytes = budget_bytes
        self._uses = 0
        self._changed = threading.Condition()

    def __getitem__(self, name: str) -> CacheEntry:
        """Raises `KeyError`."""
        return self._places[name]

    def use(self, place: CacheEntry) -> None:
        """Keep what is there, or comes, until `leave`."""
        with self._changed:
            self._uses += 1
            place.users += 1
            place.wanted = self._uses

    def leave(self, place: CacheEntry) -> None:
        """The end of a use."""
        with self._changed:
            place.users -= 1
            self._make_room(0)
            self._changed.notify_all()

    def expect(self, place: CacheEntry) -> None:
        """Make room for a model of ``place.size_bytes``.

        Where the ones in use leave too little, it waits `PATIENCE_S` for them and then goes beyond the
        budget: others might never leave, and the model would never come.
        """
        until_s = time.monotonic() + PATIENCE_S
        with self._changed:
            while not self._make_room(place.size_bytes) and self._some_may_leave:
                rest_s = until_s - time.monotonic()
                if rest_s <= 0:
                    break
                self._changed.wait(rest_s)
            place.arriving = True

    def put(self, place: CacheEntry, network: Network | None, size_bytes: int) -> None:
        """Put a model there, expected or not; None where it did not come."""
        with self._changed:
            place.network, place.arriving, place.size_bytes = network, False, size_bytes
            if network is not None:
                place.problem = None
                if not self._make_room(0):
                    self._warn(place)
            self._changed.notify_all()

    def clear(self) -> None:
        """Let everything go that is idle."""
        with self._changed:
            for place in self._places.values():
                if place.idle:
                    place.network = None

    @property
    def _taken_bytes(self) -> int:
        return sum(place.taken_bytes for place in self._places.values())

    @property
    def _some_may_leave(self) -> bool:
        """Whether some are in use, or come to be used, that could go afterwards."""
        return any(place.taken_bytes and not (place.idle or place.stays) for place in self._places.values())

    def _make_room(self, wanted_bytes: int) -> bool:
        """With the lock held: let idle ones go until so much fits; whether it does.

        The last one stays as long as nothing else is wanted, even where it is larger than the budget: it
        would be loaded again for the next question.
        """
        loaded = sum(place.network is not None for place in self._places.values())
        idle = sorted(
            (place for place in self._places.values() if place.idle), key=lambda place: place.wanted
        )
        leaving = []
        for place in idle[: None if wanted_bytes else loaded - 1]:
            if self._taken_bytes + wanted_bytes <= self._budget_bytes:
                break
            place.network = None
            leaving.append(place.name)
        if leaving:
            gc.collect()  # networks refer to themselves
            _log.info("left for want of memory: %s", ", ".join(leaving))
        return self._taken_bytes + wanted_bytes <= self._budget_bytes

    def _warn(self, place: CacheEntry) -> None:
        taken_mb, budget_mb = self._taken_bytes / 1e6, self._budget_bytes / 1e6
        _log.warning(
            "with model %s, models take %.1f MB of the %.1f MB they may", place.name, taken_mb, budget_mb
        )
