"""The containers' health check: ``python health.py gateway`` or ``python health.py worker``.

Exit status 0 when healthy, otherwise 1 and one line that says what is not. The gateway is asked whether it is
alive, not whether it is ready: a worker that is away is no fault of its container. A worker is alive while
Redis holds its word, which it renews every few seconds and which ends by itself.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from http.client import HTTPException
from urllib.request import urlopen

#: Below the five seconds that the Dockerfile gives a health check.
TIMEOUT_S = 3.0


def gateway(environ: Mapping[str, str]) -> str | None:
    """What is wrong with the gateway of this container, or None."""
    url = f"http://127.0.0.1:{environ.get('PROXYGRAD_PORT') or 8000}/livez"
    try:
        with urlopen(url, timeout=TIMEOUT_S):
            return None
    except (OSError, HTTPException) as error:
        return f"{url} does not answer: {error}"


def worker(environ: Mapping[str, str]) -> str | None:
    """What is wrong with the worker of this container, or None."""
    from proxygrad.protocol.addresses import without_secrets
    from workers.broker.connection import connect
    from workers.fleet.catalog import live_workers

    url, host = environ.get("REDIS_URL") or "", socket.gethostname()
    try:
        with connect(url, retries=0, timeout_s=TIMEOUT_S) as redis:
            live = live_workers(redis)
    except Exception as error:  # Whatever it is, the answer is one line.
        return f"Redis at {without_secrets(url)!r} does not answer: {error}"
    if any(name.startswith(f"{host}-") for name in live):
        return None
    return f"no worker of host {host!r} is alive; there are: {', '.join(live) or 'none'}"


def main(arguments: list[str]) -> int:
    """Check the part that is named; the exit status."""
    checks = {"gateway": gateway, "worker": worker}
    if len(arguments) != 1 or arguments[0] not in checks:
        print(f"usage: health.py {{{','.join(checks)}}}, not {arguments}", file=sys.stderr)
        return 2
    problem = checks[arguments[0]](os.environ)
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
