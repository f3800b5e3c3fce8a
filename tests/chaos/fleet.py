"""The service as processes of their own, and a supervisor that starts again what ended.

Signals go to processes that were started here, and to no others.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from redis import Redis

from proxygrad.spec.settings import MAX_STEPS
from service.stack.valkey import EmbeddedValkey
from tests.chaos.member import Member
from tests.chaos.plan import COMPILED, SPARE_S, FaultKind, Scale
from tests.support.full_store import FullStore
from tests.support.stepped_clock import SteppedClock
from workers.broker.connection import connect
from workers.fleet import catalog

START_LIMIT_S = 90.0
#: What a machine that crashes may lose with `appendfsync everysec`.
UNSYNCED_S = 1.0
#: Between two faults of Redis, so that something is under way at the second.
BREATH_S = 3.0


class Fleet:
    """A Valkey, some workers and a gateway under ``home``, up when entered and gone when left.

    ``surprises`` are ends that no fault accounts for. ``drains`` are the spans that drains took, and ``cuts``
    those of which a Redis that crashed remembers nothing, ``outages`` those without one, ``full`` those with
    a full store, and ``shifts`` those in which Redis' clock was ahead by so much, in seconds since 1970.
    ``without`` are the faults that cannot be brought about here.
    """

    def __init__(self, home: Path, scale: Scale) -> None:
        self.home = home
        self.scale = scale
        self.surprises: list[str] = []
        self.drains: list[tuple[float, float]] = []
        self.cuts: list[tuple[float, float]] = []
        self.outages: list[tuple[float, float]] = []
        self.full: list[tuple[float, float]] = []
        self.shifts: list[tuple[float, float, float]] = []
        self.without: frozenset[FaultKind] = frozenset()
        self.redis_up = False
        self.redis_paused = False
        self._redis_since_s = 0.0
        self._redis_away_at = time.time()
        self.clock: SteppedClock | None = None
        self.store_disk: FullStore | None = None
        if shutil.which("cc") is None:
            self.without = COMPILED
        else:
            self.clock = SteppedClock(home / "clock")
            self.store_disk = FullStore(home / "disk", home / "artifacts")
        binary = None if self.clock is None else self.clock.binary
        self.valkey = EmbeddedValkey(home / "valkey", binary=binary)
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._restarts: set[str] = set()
        self._synced: deque[tuple[float, Path, int]] = deque(maxlen=100)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self.raise_redis()
        self.url = self.valkey.url
        port = _free_port()
        self.address = f"http://127.0.0.1:{port}"
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PROXYGRAD_")},
            "REDIS_URL": self.url,
            "PROXYGRAD_HOME": str(self.home),
            "PROXYGRAD_DEVICE": "cpu",
            "PROXYGRAD_SLOTS": str(self.scale.slots),
            "PROXYGRAD_GRACE_S": str(self.scale.grace_s),
            "PROXYGRAD_THREADS": "1",
            "PROXYGRAD_PORT": str(port),
            "PROXYGRAD_MAX_STEPS": str(MAX_STEPS),
            "OMP_NUM_THREADS": "1",
        }
        names = [f"worker-{number}" for number in range(self.scale.workers)]
        disk = {} if self.store_disk is None else self.store_disk.environ
        self.workers = [Member(name, "workers", {**environ, **disk}, self.home) for name in names]
        self.gateway = Member("gateway", "service", environ, self.home)
        for member in self.members:
            member.start()
        self._await()

    @property
    def members(self) -> list[Member]:
        """Without Redis."""
        return [*self.workers, self.gateway]

    def client(self, timeout_s: float = 3.0) -> Redis:
        """Of the queue's Redis, as somebody who tries again by himself."""
        return connect(self.url, retries=0, timeout_s=timeout_s)

    def _await(self) -> None:
        until_s = time.monotonic() + START_LIMIT_S
        with self.client() as redis:
            while len(catalog.live_workers(redis)) < self.scale.workers or not self._answers():
                ended = [member.name for member in self.members if not member.running]
                assert not ended, f"{ended} ended while starting; see {self.home}"
                assert time.monotonic() < until_s, f"not up within {START_LIMIT_S:g} s; see {self.home}"
                time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/readyz", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    # -- the supervisor ------------------------------------------------------------------------------------

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something in one of the next rounds of `tend`."""
        self._due.append((time.monotonic() + delay_s, action))

    def tend(self) -> None:
        """One round: do what is due, and see who has ended."""
        now_s = time.monotonic()
        for entry in [entry for entry in self._due if entry[0] <= now_s]:
            self._due.remove(entry)
            entry[1]()
        for member in self.members:
            if not member.running and member.name not in self._restarts:
                self._bury(member)
        if self.redis_up:
            if not self.valkey.running:
                self.surprises.append("Redis ended by itself")
                self.redis_up = False
                self.later(1.0, self.raise_redis)
            else:
                self._note_synced()

    @property
    def at_peace(self) -> bool:
        """Whether nothing is due."""
        return not self._due

    def _bury(self, member: Member) -> None:
        # Who starts while Redis is away says so and ends; its supervisor tries again.
        if member.status not in member.expected and not (member.status == 1 and not self.redis_settled):
            self.surprises.append(f"{member.name} ended with status {member.status}")
        if member.draining_since is not None and member.status == 0:
            self.drains.append((member.draining_since, time.time()))
        self._restarts.add(member.name)
        self.later(member.away_s, lambda: self._restart(member))

    def _restart(self, member: Member) -> None:
        self._restarts.discard(member.name)
        member.start()

    # -- Redis ---------------------------------------------------------------------------------------------

    def raise_redis(self) -> None:
        """Start it, with what is on disk."""
        self.valkey.__enter__()
        with connect(self.valkey.url) as redis:
            self._redis_pid = int(redis.info("server")["process_id"])
        self._synced.clear()
        self._note_back()
        self.redis_up = True

    @property
    def redis_settled(self) -> bool:
        """Whether it has been there for a while."""
        there = self.redis_up and not self.redis_paused
        return there and time.monotonic() - self._redis_since_s > BREATH_S

    def pause_redis(self, lasts_s: float) -> None:
        """It stands still; its clock goes on."""
        self.redis_paused = True
        self._redis_away_at = time.time()
        self.signal_redis(signal.SIGSTOP)
        self.later(lasts_s, self._resume_redis)

    def _resume_redis(self) -> None:
        self.signal_redis(signal.SIGCONT)
        self._note_back()
        self.redis_paused = False

    def _note_back(self) -> None:
        self._redis_since_s = time.monotonic()
        self.outages.append((self._redis_away_at, time.time()))

    def signal_redis(self, number: signal.Signals) -> None:
        os.kill(self._redis_pid, number)

    def kill_redis(self, *, crash: bool, away_s: float) -> None:
        """`kill -9`; with ``crash`` as the whole machine would, which takes with it what was not synced."""
        self.redis_up = False
        self.signal_redis(signal.SIGKILL)
        killed_at = self._redis_away_at = time.time()
        self.valkey.close()
        if crash:
            self._forget(killed_at)
        self.later(away_s, self.raise_redis)

    def _note_synced(self) -> None:
        """How long the file was: of what is older than a second, everything is on disk."""
        files = sorted((self.home / "valkey" / "appendonlydir").glob("*.incr.aof"))
        if files:
            self._synced.append((time.time(), files[-1], files[-1].stat().st_size))

    def _forget(self, killed_at: float) -> None:
        old = [entry for entry in self._synced if entry[0] <= killed_at - UNSYNCED_S]
        if old:
            at, file, size_bytes = old[-1]
            os.truncate(file, size_bytes)
            self.cuts.append((at, killed_at))

    # -- clock and store -----------------------------------------------------------------------------------

    def set_clock(self, ahead_s: float, lasts_s: float) -> None:
        """Redis' clock is wrong for a while."""
        assert self.clock is not None
        self.clock.set(ahead_s)
        began_at = time.time()

        def right(clock: SteppedClock) -> None:
            clock.set(0)
            self.shifts[-1] = began_at, time.time(), ahead_s

        self.shifts.append((began_at, began_at + 2 * lasts_s, ahead_s))
        self.later(lasts_s, partial(right, self.clock))

    @property
    def clock_is_right(self) -> bool:
        return self.clock is None or self.clock.ahead_s == 0

    def real(self, at: float) -> float:
        """A time on Redis' clock, on that of the machine."""
        for since, until, ahead_s in self.shifts:
            if since - 1 <= at - ahead_s <= until + 1:
                return at - ahead_s
        return at

    def fill_store(self, lasts_s: float) -> None:
        """No worker can write to the store for a while."""
        assert self.store_disk is not None
        self.store_disk.set(True)
        began_at = time.time()

        def make_room(disk: FullStore) -> None:
            disk.set(False)
            self.full[-1] = began_at, time.time()

        self.full.append((began_at, began_at + 2 * lasts_s))
        self.later(lasts_s, partial(make_room, self.store_disk))

    # -- the end -------------------------------------------------------------------------------------------

    def retire(self) -> list[str]:
        """Stop gateway and workers as an operator would; what was wrong with that."""
        for member in self.members:
            member.send(signal.SIGTERM)
        wrong = []
        for member in self.members:
            status = member.wait(self.scale.grace_s + 2 * SPARE_S)
            if status != 0 and not (member is self.gateway and status == -signal.SIGTERM):  # as uvicorn ends
                wrong.append(f"{member.name} was asked to stop at the end and did with status {status}")
        return wrong

    def close(self) -> None:
        """End everything that is left."""
        for member in getattr(self, "workers", []) + ([self.gateway] if hasattr(self, "gateway") else []):
            if member.running:
                member.send(signal.SIGKILL)
                member.wait(5)
        if self.redis_up:
            self.signal_redis(signal.SIGCONT)
        self.valkey.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
