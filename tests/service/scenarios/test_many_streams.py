"""One caller with more event streams than the gateway has descriptors keeps out nobody, and fills no log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
from redis import Redis

from tests.service.conftest import Http
from tests.support.command_processes import REPOSITORY
from tests.support.eventually import until
from tests.support.raw_http import connected
from workers.broker.keys import events_key

#: The process may have so many; it keeps 100 for itself, and lets half of the others be streams.
DESCRIPTORS, STREAMS = 200, 50
ASKED = 260


def test_one_caller_keeps_out_nobody(redis_url: str, served: Http, redis: Redis, tmp_path: Path) -> None:
    job_id = served.ask(json={"model": "digits", "layer": "layer3", "unit": 7}).json()["id"]
    request = f"GET /v1/visualizations/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    own = {"PROXYGRAD_HOME": str(tmp_path), "PROXYGRAD_PORT": "0", "REDIS_URL": redis_url}
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PROXYGRAD_")}
    log = tmp_path / "log"
    with ExitStack() as opened:
        process = subprocess.Popen(
            ["bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" -m service', sys.executable],
            cwd=REPOSITORY,
            env=kept | own,
            stdout=opened.enter_context(log.open("wb")),
            stderr=subprocess.STDOUT,
        )
        opened.callback(process.wait, 30)
        opened.callback(process.terminate)
        until(lambda: "startup complete" in log.read_text(), 60)
        found = re.search(r"listening on (http://\S+)\n", log.read_text())
        assert found
        for _ in range(ASKED):
            opened.enter_context(connected(found[1])).sendall(request)
        # Those that were refused go away; those that follow stay.
        until(lambda: _is_let_in(found[1]), 60)
        until(lambda: log.read_text().count('/events HTTP/1.1" 200') == STREAMS, 60)
        assert redis.pubsub_numsub(events_key(job_id))[0][1] == 1
        text = log.read_text()
        assert '/events HTTP/1.1" 429' in text
        assert len(text) < 200 * ASKED
        assert "Traceback" not in text


def _is_let_in(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models", trust_env=False, timeout=30).status_code == 200
    except httpx.TransportError:  # refused before it was read
        return False
