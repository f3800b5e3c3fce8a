"""Connections to Redis: clients that retry, a bounded pool for a process with many threads, checks of URLs.

No message shows the password of a URL.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from proxygrad.protocol.addresses import without_secrets
from workers.errors import QueueUnavailable, SettingsError

#: Retries of every command of a worker, waiting 0.1 s, then twice as long, at most 2 s each: two minutes.
#: With redis-py's default of 3 retries a Redis away for 3 to 20 s ended 2 to 4 of 8 slots; with these, none.
WORKER_RETRIES = 60
BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 2.0

#: Far longer than any reply takes: only a dead peer meets it.
SOCKET_TIMEOUT_S = 10.0

#: A connection that was idle this long is checked before use: proxies drop idle ones silently, nginx for one
#: after 60 s without a word (the default of its `proxy_read_timeout`).
HEALTH_CHECK_S = 30

#: Of a worker, for commands, however many slots it has: each is held for one command or script, which takes a
#: fraction of a millisecond.
WORKER_CONNECTIONS = 3
#: Longest wait for one of them: longer than all retries of the command that has it.
CONNECTION_WAIT_S = 150.0


class Connections(redis.BlockingConnectionPool):
    """A bounded pool: users wait for a free connection, and the error says so when none comes."""

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """A connection. Raises redis' `ConnectionError` when there is none within the pool's timeout."""
        began_s = time.monotonic()
        try:
            return super().get_connection()  # type: ignore[no-untyped-call]
        except RedisConnectionError as error:
            if not isinstance(error.__context__, Empty):
                raise
            raise RedisConnectionError(
                f"all {self.max_connections} connections to Redis have been in use "
                f"for {time.monotonic() - began_s:.0f} s"
            ) from error


def check_url(url: str) -> None:
    """Raises `ValueError` for a URL that is not one of Redis."""
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ValueError(_unusable(url)) from None  # the error of the parser may have the password


def _unusable(url: str) -> str:
    return (
        f"is {without_secrets(url)!r}; valid: redis://host:port/0, rediss://…, unix:///path, with each of "
        "/ ? # @ % in a password percent-encoded"
    )


def connect(
    url: str,
    *,
    retries: int = WORKER_RETRIES,
    timeout_s: float = SOCKET_TIMEOUT_S,
    connections: int | None = None,
) -> redis.Redis:
    """A client, safe to share between threads; connects on first use.

    ``retries``: how often a command is tried again when Redis is away; a gateway that would rather answer
    503 at once passes 0. ``timeout_s``: for connecting and for each answer. ``connections``: how many it may
    open, None: as many as are wanted at once. Raises `SettingsError` for a URL that is not one of Redis.
    """
    options: dict[str, Any] = {
        "retry": Retry(ExponentialWithJitterBackoff(cap=BACKOFF_CAP_S, base=BACKOFF_BASE_S), retries),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": HEALTH_CHECK_S,
    }
    try:
        if connections is None:
            return redis.Redis.from_url(url, **options)
        pool = Connections.from_url(url, max_connections=connections, timeout=CONNECTION_WAIT_S, **options)
        return redis.Redis.from_pool(pool)
    except ValueError:
        raise SettingsError(f"REDIS_URL {_unusable(url)}") from None


def require_redis(url: str, *, timeout_s: float = 3.0) -> None:
    """Return when Redis answers; raises `QueueUnavailable`, naming the URL, when it does not."""
    client = connect(url, retries=2, timeout_s=timeout_s)
    try:
        client.ping()
    except (RedisError, OSError) as exc:
        reason = str(exc).rstrip(".")
        raise QueueUnavailable(f"no Redis answers at {without_secrets(url)}: {reason}") from exc
    finally:
        client.close()
