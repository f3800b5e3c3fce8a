"""One run: everything up, questions and faults as drawn, everything settled, everything looked at."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from redis import Redis
from redis.exceptions import RedisError

from proxygrad.client import Client
from tests.chaos import report, undisturbed
from tests.chaos.book import Book
from tests.chaos.bundles import BundleCaller
from tests.chaos.callers import AtTheQueue, Caller, Desk, OverHttp
from tests.chaos.faults import strike
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Evidence, Ledger, audit, unended
from tests.chaos.member import NEXT_ENGINE
from tests.chaos.plan import AT_THE_QUEUE, OVER_HTTP, SPARE_S, Plan, Scale, draw
from tests.chaos.watch import Blow, Watch
from tests.support import queue_invariants
from workers.broker.connection import connect
from workers.fleet import catalog
from workers.jobs.repository import Jobs
from workers.storage.store import Store

Callers: TypeAlias = list[Caller | BundleCaller]

TICK_S = 0.05
#: Mismatches that are printed.
MOST_SAID = 100
#: Once all has ended, what a janitor still has to put away.
AFTERMATH_S = 30.0
MODEL = "digits"


class Chaos:
    """A run with that seed. ``say`` is told what happens."""

    def __init__(self, seed: int, scale: Scale, home: Path, say: Callable[[str], None]) -> None:
        self._seed = seed
        self._scale = scale
        self._home = home
        self._say = say
        self._over = threading.Event()
        self._blows: list[Blow] = []

    def run(self) -> Ledger:
        """The ledger. Raises `TimeoutError` where the run is not through by its limit."""
        began_s = time.monotonic()
        with _limited(self._scale.limit_s), Fleet(self._home, self._scale) as fleet, ExitStack() as clients:
            store = Store.from_url((self._home / "artifacts").as_uri())
            with fleet.client() as redis:
                info = catalog.served(redis)[MODEL].info
            assert info is not None
            self._versions = [info, info.model_copy(update={"engine_version": NEXT_ENGINE})]
            plan = draw(self._seed, self._scale, info, fleet.without)
            if fleet.without:
                self._say(f"without {', '.join(sorted(fleet.without))}: no C compiler is installed as `cc`")
            units = len(plan.bundles) * self._scale.bundle_units
            self._say(
                f"{len(plan.questions)} questions, {len(plan.bundles)} batches of {units} units in all, "
                f"{len(plan.faults)} faults, seed {self._seed}"
            )
            book = Book()
            watch = Watch(clients.enter_context(fleet.client()), store, book, self._over, fleet.real)
            self._plan = plan
            client = clients.enter_context(Client(fleet.address, retries=0))
            bundles = BundleCaller(client, plan.bundles, book, self._over)
            callers: Callers = [*self._callers(plan, fleet, store, book, clients), bundles]
            try:
                watch.start()
                self._shake(plan, fleet, watch, callers)
                ledger = self._settle(fleet, store, book, watch, callers)
            finally:
                self._over.set()
                for thread in (watch, *callers):
                    thread.join(20)
            self._print(ledger, book, fleet, watch, time.monotonic() - began_s)
        return ledger

    def _callers(
        self, plan: Plan, fleet: Fleet, store: Store, book: Book, clients: ExitStack
    ) -> Iterator[Caller]:
        for name in (*AT_THE_QUEUE, *OVER_HTTP):
            desk: Desk
            if name in OVER_HTTP:
                desk = OverHttp(clients.enter_context(Client(fleet.address, retries=0)))
            else:
                desk = AtTheQueue(clients.enter_context(fleet.client()), store, self._versions)
            questions = [question for question in plan.questions if question.caller == name]
            yield Caller(name, desk, questions, book, self._over)

    def _shake(self, plan: Plan, fleet: Fleet, watch: Watch, callers: Callers) -> None:
        began_s, coming = time.monotonic(), deque(plan.faults)
        for caller in callers:
            caller.start()
        while coming or time.monotonic() < began_s + self._scale.spread_s:
            fleet.tend()
            if coming and time.monotonic() - began_s >= coming[0].at_s:
                blow = strike(coming[0], fleet, watch)
                if blow is not None:
                    coming.popleft()
                    self._blows.append(blow)
                    hit = f", {len(blow.hits)} jobs in hand" if blow.hits else ""
                    lasts_s = blow.until - blow.at
                    self._say(
                        f"{blow.at % 86400 % 3600:7.1f}  {blow.kind}: {blow.target} for {lasts_s:.1f} s{hit}"
                    )
            time.sleep(TICK_S)

    def _settle(self, fleet: Fleet, store: Store, book: Book, watch: Watch, callers: Callers) -> Ledger:
        """Until all has ended, nothing is in the middle of anything, and the processes have stopped."""
        self._say("no more faults")
        with connect(fleet.url) as redis:
            unsettled = self._tend_until(
                lambda: _unsettled(fleet, book, watch, callers) or unended(book, redis),
                self._scale.settle_s,
                fleet,
            )
            unrest = self._tend_until(lambda: queue_invariants.faults(redis), AFTERMATH_S, fleet)
            self._over.set()
            wrong = fleet.retire()
            ledger = audit(Evidence(book, fleet, watch, redis, store, self._versions), self._plan.bundles)
            ledger.mismatches += wrong + unended(book, redis)
            ledger.compared, differing = undisturbed.compare(ledger.succeeded, store)
            ledger.mismatches += differing
            _sweep_starts(watch, book, redis, store, fleet)
        limit_s = f"{self._scale.settle_s:g} s after the last fault"
        ledger.mismatches += [f"{limit_s}: {what}" for what in [*unsettled, *unrest]]
        ledger.mismatches += _slow_drains(fleet)
        return ledger

    def _tend_until(self, left: Callable[[], list[str]], limit_s: float, fleet: Fleet) -> list[str]:
        """What is ``left`` to wait for at the end of the limit; nothing as soon as that is so."""
        until_s, found = time.monotonic() + limit_s, ["Redis did not answer"]
        while time.monotonic() < until_s:
            fleet.tend()
            with suppress(RedisError):
                found = left()
                if not found:
                    break
            time.sleep(4 * TICK_S)
        return found

    def _print(self, ledger: Ledger, book: Book, fleet: Fleet, watch: Watch, took_s: float) -> None:
        for line in report.of_faults(self._blows, watch, book):
            self._say(line)
        self._say("")
        for line in report.of_jobs(ledger, book, fleet):
            self._say(line)
        self._say(f"mismatches          {len(ledger.mismatches)}")
        for mismatch in ledger.mismatches[:MOST_SAID]:
            self._say(f"  {mismatch}")
        self._say(f"{took_s:.0f} s in all, seed {self._seed}")


def _sweep_starts(watch: Watch, book: Book, redis: Redis, store: Store, fleet: Fleet) -> None:
    """Of jobs that ended between two looks, too."""
    jobs = Jobs(redis, store)
    for job_id in book.accounts:
        job = jobs.fetch(job_id)
        if job is not None and job.started_at is not None:
            watch.starts.setdefault(f"last of {job_id}", fleet.real(job.started_at))


def _unsettled(fleet: Fleet, book: Book, watch: Watch, callers: Callers) -> list[str]:
    """What a run still waits for, in words."""
    left = [] if fleet.at_peace else ["something is still to be started or resumed"]
    left += [f"{caller.name} still waits" for caller in callers if not caller.done]
    left += [f"{account.job_id} is damaged" for account in list(book.to_mend)]
    left += [f"{job_id} was not seen to end" for job_id in book.open_ids()]
    return left + [f"{hit} is not known to have gone on" for hit in watch.unsettled]


def _slow_drains(fleet: Fleet) -> Iterator[str]:
    """A worker is gone within its grace period, but for `SPARE_S` of a busy machine."""
    for since, until in fleet.drains:
        if until - since > fleet.scale.grace_s + SPARE_S:
            yield f"a drain took {until - since:.1f} s; the grace period is {fleet.scale.grace_s:g} s"


@contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    """Raises `TimeoutError` in the main thread when the block takes longer, whatever it is at."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not through within {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def chaos(seed: int, scale: Scale, say: Callable[[str], None] = print) -> Ledger:
    """Run it in a folder of its own, which is kept where something is wrong."""
    home = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))  # short: it holds a socket
    try:
        ledger = Chaos(seed, scale, home, say).run()
    except BaseException:
        say(f"the logs are in {home}")
        raise
    if ledger.mismatches:
        say(f"the logs are in {home}")
    else:
        shutil.rmtree(home)
    return ledger
