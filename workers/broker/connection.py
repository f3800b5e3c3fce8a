"""A bounded pool of connections to Redis, for a process with many threads."""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError

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
