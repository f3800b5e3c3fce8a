"""`python -m service` as a process: it starts, refuses to start in one line, and stops at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx
import pytest
from redis import Redis

from service.server.sockets import listen
from tests.service.conftest import Http
from tests.support.command_processes import REPOSITORY
from workers.broker.keys import events_key


def gateway(
    home: Path, stdout: IO[str] | int = subprocess.DEVNULL, /, **environ: str
) -> subprocess.Popen[str]:
    own = {"PROXYGRAD_HOME": str(home), "PROXYGRAD_PORT": "0", "PYTHONUNBUFFERED": "1"}
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PROXYGRAD_", "REDIS_"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=REPOSITORY,
        env={**kept, **own, **environ},
        stderr=subprocess.PIPE,
        stdout=stdout,
        text=True,
    )


@pytest.fixture
def running(redis_url: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway and its URL."""
    with gateway(tmp_path, REDIS_URL=redis_url) as process:
        deadline = threading.Timer(120, process.kill)
        deadline.start()
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            found = re.fullmatch(r"\S+Z INFO listening on (http://\S+)\n", said)
            assert found, said
            while "startup complete" not in said:
                said = process.stderr.readline()
                assert said, "it ended before it was up"
            yield process, found[1]
        finally:
            deadline.cancel()
            process.kill()


# uvicorn passes SIGTERM on after the last answer
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, 0)])
def test_it_stops_at_once_and_answers_those_who_wait(
    number: signal.Signals,
    status: int,
    running: tuple[subprocess.Popen[str], str],
    served: Http,
    redis: Redis,
) -> None:
    process, url = running
    job_id = served.ask(json={"model": "digits", "layer": "layer3", "unit": 7}).json()["id"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.get, f"{url}/v1/visualizations/{job_id}?wait=60", timeout=70)
        while not redis.pubsub_numsub(events_key(job_id))[0][1]:
            time.sleep(0.01)
        before_s = time.monotonic()
        process.send_signal(number)
        assert waiting.result().json()["state"] == "queued"
        assert process.wait(30) == status
        assert time.monotonic() - before_s < 30


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "REDIS_URL is not set"),
        ({"REDIS_URL": "http://127.0.0.1"}, "REDIS_URL is 'http://127.0.0.1'"),
        (
            {"REDIS_URL": "unix:///x", "PROXYGRAD_HOST": "0.0.0.0", "PROXYGRAD_REQUIRE_KEYS": "no"},
            "PROXYGRAD_REQUIRE_KEYS is false",
        ),
        ({"REDIS_URL": "redis://127.0.0.1:1", "PROXYGRAD_STORE": "nothing://x"}, "nothing://x"),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_one_line(
    environ: dict[str, str], said: str, tmp_path: Path
) -> None:
    with gateway(tmp_path, **environ) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("error: ")
    assert said in errors
    assert errors.count("\n") == 1


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        with gateway(tmp_path, REDIS_URL="redis://127.0.0.1:1", PROXYGRAD_PORT=port) as process:
            _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.count("\n")) == (1, 1)
    assert errors.startswith(f"error: port {port} on 127.0.0.1 is in use")
    assert "name another with PROXYGRAD_PORT (0 takes any free one)" in errors


def test_a_socket_that_others_reach_asks_for_keys_whatever_the_settings_say(
    redis_url: str, tmp_path: Path
) -> None:
    with listen("0.0.0.0", 0) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        own = {"REDIS_URL": redis_url, "PROXYGRAD_HOME": str(tmp_path), "PROXYGRAD_REQUIRE_KEYS": "false"}
        command = [sys.executable, "-m", "service", "--fd", str(fd)]
        with subprocess.Popen(
            command, cwd=REPOSITORY, env={**os.environ, **own}, pass_fds=[fd], stderr=subprocess.DEVNULL
        ) as process:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=120)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            finally:
                process.terminate()
