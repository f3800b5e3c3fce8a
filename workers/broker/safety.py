"""Settings of Redis that break what the queue promises: that an accepted job is not lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis.exceptions import ResponseError

#: The settings that are looked at, and what each would have to be.
POLICY = "maxmemory-policy"
PERSISTENCE = "appendonly"
SETTINGS = (POLICY, PERSISTENCE)


def unsafe_settings(client: redis.Redis) -> Mapping[str, str]:
    """The settings under which accepted jobs may be lost, with a sentence on each; none when all is well.

    A server that does not let them be read counts as safe. Raises `RedisError`.
    """
    memory, persistence = (_info(client, section) for section in ("memory", "persistence"))
    found = {}
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found[POLICY] = (
            f"Redis' {POLICY} is {policy}: with its memory full it drops keys, and with them accepted jobs, "
            "without a word; set it to noeviction"
        )
    if not int(persistence.get("aof_enabled", 1)):
        found[PERSISTENCE] = (
            f"Redis' {PERSISTENCE} is no: when it restarts, jobs accepted since its last snapshot are lost; "
            "set it to yes"
        )
    return found


def _info(client: redis.Redis, section: str) -> Mapping[str, Any]:
    try:
        return client.info(section)
    except ResponseError:
        return {}
