"""What holds of the whole queue whenever nothing is in the middle of it."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from redis import Redis

from workers.broker import keys, rq_names


def faults(redis: Redis, *, theirs: bool = True) -> list[str]:
    """Every job that is not in exactly the places that fit its state, in words; none when all is well.

    Without ``theirs``, what RQ's own tools write about a job is left out: they look first and write later.
    """
    found: list[str] = []
    listed, popped = _list(redis, rq_names.QUEUE_KEY), _list(redis, rq_names.INTERMEDIATE_KEY)
    indexed = _indexed(redis)
    found += [f"{name} stands {count} times" for name, count in (listed + popped).items() if count != 1]
    if listed != indexed:
        found.append(f"list and index differ: {listed - indexed} {indexed - listed}")
    leased = Counter(member.rpartition(":")[0] for member in _members(redis, rq_names.LEASES_KEY))
    records = {key[len("proxygrad:job:") :]: _hash(redis, key) for key in _keys(redis, "proxygrad:job:*")}
    for name, fields in records.items():
        places = (listed[name], popped[name], leased[name])
        found += _faults_of(redis, name, fields, places) if theirs else _misplaced(name, fields, places)
    found += [f"{name} has no record" for name in (listed | popped | leased) if name not in records]
    return found + _faults_of_callers(redis, records, listed) + _faults_of_flows(redis, records, indexed)


def _misplaced(name: str, fields: dict[str, str], places: tuple[int, int, int]) -> list[str]:
    fitting = {"queued": [(1, 0, 0), (0, 1, 0)], "running": [(0, 0, 1)]}
    right = places in fitting.get(fields["state"], [(0, 0, 0)])
    return [] if right else [f"{name} is {fields['state']}, but {places}"]


def _faults_of(redis: Redis, name: str, fields: dict[str, str], places: tuple[int, int, int]) -> list[str]:
    state = fields["state"]
    status = redis.hget(rq_names.entry_key(name), "status")
    registries = [rq_names.FINISHED_KEY, rq_names.FAILED_KEY, rq_names.CANCELED_KEY]
    kept = [key for key in registries if redis.zscore(key, name) is not None]
    there = (*places, status, kept)
    fitting: dict[str, list[tuple[Any, ...]]] = {
        "queued": [(1, 0, 0, b"queued", []), (0, 1, 0, b"queued", [])],
        "running": [(0, 0, 1, b"started", [])],
        "succeeded": [(0, 0, 0, b"finished", [rq_names.FINISHED_KEY])],
        "failed": [(0, 0, 0, b"failed", [rq_names.FAILED_KEY])],
        "canceled": [(0, 0, 0, b"canceled", [rq_names.CANCELED_KEY]), (0, 0, 0, None, [])],
    }
    faults = [] if there in fitting[state] else [f"{name} is {state}, but {there}"]
    if (redis.ttl(keys.job_key(name)) > 0) != (state not in ("queued", "running")):
        faults.append(f"{name} is {state}, and its record ends in {redis.ttl(keys.job_key(name))} s")
    if state != "queued" and redis.zscore("proxygrad:deadlines", name) is not None:
        faults.append(f"{name} is {state}, and among the deadlines of those that wait")
    if state not in ("queued", "running") and {"checkpoint", "cancel_requested"} & fields.keys():
        faults.append(f"{name} is {state}, and still has {fields.keys()}")
    return faults


def _faults_of_callers(redis: Redis, records: dict[str, dict[str, str]], listed: Counter[str]) -> list[str]:
    counted = {
        name: key.removeprefix("proxygrad:waiting:")
        for key in _keys(redis, "proxygrad:waiting:*")
        for name in (member.decode() for member in cast(set[bytes], redis.smembers(key)))
    }
    expected = {name: records[name]["caller"] for name in listed if name in records}
    callers = {caller.decode() for caller in cast(set[bytes], redis.smembers("proxygrad:callers"))}
    faults = [] if counted == expected else [f"callers count {counted}, waiting are {expected}"]
    return faults + ([] if callers == set(expected.values()) else [f"callers are {callers}"])


def _faults_of_flows(redis: Redis, records: dict[str, dict[str, str]], indexed: Counter[str]) -> list[str]:
    faults: list[str] = []
    for priority in ("interactive", "batch"):
        here = [
            records[name] for name in indexed if name in records and records[name]["priority"] == priority
        ]
        counts = Counter(fields["flow"] for fields in here)
        flows = _hash(redis, f"proxygrad:flows:{priority}")
        said = {name[2:]: int(text) for name, text in flows.items() if name.startswith("n:")}
        if said != counts:
            faults.append(f"{priority} flows count {said}, waiting are {counts}")
        models = {fields["model"] for fields in here}
        if _hash(redis, f"proxygrad:offsets:{priority}").keys() != models:
            faults.append(f"{priority} models are {models}, not those with an offset")
    return faults


def _indexed(redis: Redis) -> Counter[str]:
    members = [
        member
        for priority in ("interactive", "batch")
        for key in _keys(redis, f"proxygrad:ready:{priority}:*")
        for member in _members(redis, key)
    ]
    return Counter(member[17:] for member in members)


def _list(redis: Redis, key: str) -> Counter[str]:
    return Counter(name.decode() for name in cast(list[bytes], redis.lrange(key, 0, -1)))


def _members(redis: Redis, key: str) -> list[str]:
    return [member.decode() for member in cast(list[bytes], redis.zrange(key, 0, -1))]


def _keys(redis: Redis, pattern: str) -> list[str]:
    return [key.decode() for key in cast(list[bytes], redis.keys(pattern))]


def _hash(redis: Redis, key: str) -> dict[str, str]:
    fields = cast(dict[bytes, bytes], redis.hgetall(key))
    return {name.decode(): text.decode() for name, text in fields.items()}
