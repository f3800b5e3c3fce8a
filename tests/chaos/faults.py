"""How each fault is brought about, and undone."""

from __future__ import annotations

import random
import signal
import time

from redis.exceptions import RedisError

from tests.chaos.fleet import Fleet
from tests.chaos.member import Member
from tests.chaos.plan import CLOCK_STEP_S, Fault
from tests.chaos.watch import Blow, Held, Hit, Watch
from tests.support.damaged_files import DAMAGES
from workers.fleet import catalog
from workers.jobs.kinds.visualization import image_path
from workers.storage.paths import result_path

DAMAGED_ANSWERS = 3
_KILLED = -int(signal.SIGKILL)


def strike(fault: Fault, fleet: Fleet, watch: Watch) -> Blow | None:
    """Let it happen; None where what it is to hit is not there at this moment."""
    if fault.kind.startswith("Redis"):
        return _strike_redis(fault, fleet, watch)
    if fault.kind == "gateway kill -9":
        return _strike_gateway(fault, fleet)
    if fault.kind.startswith("clock"):
        return _strike_clock(fault, fleet)
    if fault.kind == "store full":
        fleet.fill_store(fault.lasts_s)
        return _blow(fault, "store")
    if fault.kind == "files damaged":
        return _damage_files(fault, watch)
    held = watch.running()
    member = _victim(fault, fleet, watch, held)
    return None if member is None else _strike_worker(fault, fleet, watch, member)


def _victim(fault: Fault, fleet: Fleet, watch: Watch, held: list[Held]) -> Member | None:
    """One that works, where there is one; else one that could."""
    free = [member for member in fleet.workers if member.free]
    busy = [member for member in free if any(member.runs(each.worker) for each in held)]
    if not busy:
        try:
            with fleet.client() as redis:
                live = catalog.live_workers(redis)
        except RedisError:
            return None
        busy = [member for member in free if any(member.runs(name) for name in live)]
    return busy[int(fault.pick * len(busy))] if busy else None


def _strike_worker(fault: Fault, fleet: Fleet, watch: Watch, member: Member) -> Blow:
    member.away_s = fault.lasts_s
    blow = _blow(fault, member.name)
    if fault.kind == "worker kill -9":
        member.expected.add(_KILLED)
        member.send(signal.SIGKILL)
    elif fault.kind == "worker paused":
        member.paused = True
        member.send(signal.SIGSTOP)
        fleet.later(fault.lasts_s, lambda: _resume(member))
    else:
        member.upgraded ^= fault.kind == "worker upgraded"
        member.draining_since = blow.at
        member.expected.add(0)
        member.send(signal.SIGTERM)
    # After the signal: what ended just before it was not hit.
    blow.hits = [Hit(each) for each in watch.running() if member.runs(each.worker)]
    watch.follow(blow)
    return blow


def _resume(member: Member) -> None:
    member.send(signal.SIGCONT)
    member.paused = False


def _strike_redis(fault: Fault, fleet: Fleet, watch: Watch) -> Blow | None:
    if not fleet.redis_settled:
        return None
    hits = [Hit(each) for each in watch.running()]
    blow = _blow(fault, "Redis", hits)
    if fault.kind == "Redis paused":
        fleet.pause_redis(fault.lasts_s)
    else:
        fleet.kill_redis(crash=fault.kind == "Redis crash", away_s=fault.lasts_s)
    watch.follow(blow)
    return blow


def _strike_clock(fault: Fault, fleet: Fleet) -> Blow | None:
    if not (fleet.redis_settled and fleet.clock_is_right):
        return None
    fleet.set_clock(CLOCK_STEP_S if fault.kind == "clock ahead" else -CLOCK_STEP_S, fault.lasts_s)
    return _blow(fault, "clock")


def _damage_files(fault: Fault, watch: Watch) -> Blow | None:
    """As a power failure does: of a few answers, each in another way; their callers ask again."""
    answers = watch.answers()
    if len(answers) < DAMAGED_ANSWERS:
        return None
    dice = random.Random(fault.pick)
    for account in dice.sample(answers, DAMAGED_ANSWERS):
        path = dice.choice((image_path(account.job_id, 0), result_path(account.job_id)))
        watch.damage(account, path, dice.choice(DAMAGES))
    return _blow(fault, f"{DAMAGED_ANSWERS} answers")


def _strike_gateway(fault: Fault, fleet: Fleet) -> Blow | None:
    if not fleet.gateway.free:
        return None
    fleet.gateway.away_s = fault.lasts_s
    fleet.gateway.expected.add(_KILLED)
    blow = _blow(fault, "gateway")
    fleet.gateway.send(signal.SIGKILL)
    return blow


def _blow(fault: Fault, target: str, hits: list[Hit] | None = None) -> Blow:
    now = time.time()
    return Blow(fault.kind, now, now + fault.lasts_s, target, hits or [])
