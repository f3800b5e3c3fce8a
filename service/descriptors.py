"""File descriptors: how many this process may open, and how many of them callers may hold.

Each connection takes one. A process without any left can neither accept a connection nor ask Redis, so
callers may hold all but `RESERVED`, and those who wait half of these.
"""

from __future__ import annotations

import resource
from contextlib import suppress

#: The limit is raised to this at most: more connections than one process can serve.
MOST = 65_536
#: Kept for Redis and the store (a thread each, of 40 at most), for connections that are being refused, and
#: for the process itself.
RESERVED = 100
#: Event streams and long waits take some 42 KB each (docs/measurements/gateway.md).
MOST_FOLLOWERS = 4096


def raise_limit() -> None:
    """Raise the soft limit (`ulimit -n`) as far as the hard one lets it, to `MOST` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_connections() -> int:
    """How many connections callers may have."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, (MOST if soft == resource.RLIM_INFINITY else soft) - RESERVED)


def max_followers() -> int:
    """How many event streams and long waits there may be: half of the connections at most."""
    return min(MOST_FOLLOWERS, max(1, max_connections() // 2))
