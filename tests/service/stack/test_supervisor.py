"""The whole stack as processes: up, answering, down, and nothing left."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import httpx
import pytest

from proxygrad.client import Client, ProgressEvent, VisualizationParameters
from service.server.sockets import ListenError, PortInUse, address, listen
from service.settings import ServiceSettings
from service.stack.supervisor import Stack, StackError
from tests.support.command_processes import Running, all_gone, called, descendants, run

QUESTION: VisualizationParameters = {"model": "digits", "layer": "layer3", "unit": 7, "steps": 16}

needs_proc = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="finds processes in /proc, which Linux has"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def serve(home: Path) -> Iterator[Callable[..., Running]]:
    """Start `proxygrad serve`; whatever is left at the end is killed."""
    started: list[Running] = []

    def start(*arguments: str, **environ: str) -> Running:
        started.append(Running(home, "serve", "--port", "0", *arguments, environ=environ))
        return started[-1]

    yield start
    for one in started:
        one.end()


@needs_proc
@pytest.mark.engine
def test_an_answer_is_made_and_is_there_again_after_a_restart(
    serve: Callable[..., Running], home: Path
) -> None:
    first = serve()
    with Client(first.url()) as client:
        answer = client.visualize(**QUESTION).wait()
        assert answer.result.achieved_activation > answer.result.start_activation
        png = answer.image()
        again = client.visualize(**QUESTION)
        assert (again.id, again.cached, again.image()) == (answer.id, True, png)
    family = descendants(first.process.pid)
    assert len(family) == 3, family
    first.process.terminate()
    assert first.process.wait(60) == 0, first.said
    assert all_gone(family, 10), first.said
    assert "Traceback" not in first.said

    second = serve()
    with Client(second.url()) as client:
        found = client.get(answer.id)
        assert (found.state, found.result, found.image()) == ("succeeded", answer.result, png)
        assert client.visualize(**QUESTION).cached
    family = descendants(second.process.pid)
    second.process.kill()
    second.process.wait()
    assert all_gone(family, 30), second.said


@needs_proc
@pytest.mark.engine
def test_a_killed_worker_is_started_again_and_its_job_is_not_lost(serve: Callable[..., Running]) -> None:
    stack = serve()
    with Client(stack.url()) as client:
        asked = client.visualize(**QUESTION | {"steps": 256})
        for event in asked.events():
            if isinstance(event, ProgressEvent):
                break
        os.kill(pid_of(stack, "workers"), signal.SIGKILL)
        asked.wait()
        assert (asked.state, asked.problem) == ("succeeded", None)
    assert "the worker was ended by SIGKILL; starting it again in 1 s" in stack.said


@pytest.mark.engine
@needs_proc
def test_a_gateway_that_ends_ends_the_stack_and_says_so(serve: Callable[..., Running]) -> None:
    stack = serve()
    gateway = pid_of(stack, "service")
    family = descendants(stack.process.pid)
    os.kill(gateway, signal.SIGKILL)
    assert stack.process.wait(60) == 1
    assert stack.said.rstrip().endswith("error: the gateway was ended by SIGKILL")
    assert all_gone(family, 10)


@pytest.mark.engine
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_stops_it_cleanly(
    serve: Callable[..., Running], number: signal.Signals
) -> None:
    stack = serve()
    pid_of(stack, "service")
    family = descendants(stack.process.pid)
    stack.process.send_signal(number)
    assert stack.process.wait(60) == 0, stack.said
    assert all_gone(family, 10)
    assert "Traceback" not in stack.said


def pid_of(stack: Running, module: str) -> int:
    """The child that runs `module`, once it does."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        for pid, command in descendants(stack.process.pid).items():
            if f" -m {module}" in command:
                return pid
        time.sleep(0.02)
    raise AssertionError(f"{module} was not started:\n{stack.said}")


@pytest.mark.engine
def test_a_second_stack_on_the_same_directory_is_told_of_the_first(
    serve: Callable[..., Running], home: Path
) -> None:
    first = serve()
    deadline_s = time.monotonic() + 60
    lock = home / "serve.lock"
    while not (lock.exists() and "http" in lock.read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    second = called(home, "serve", "--port", "0")
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: process {first.process.pid} already serves from {str(home)!r}")
    assert "at http://127.0.0.1:" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_port_in_use_is_said_in_one_line_before_anything_starts(home: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        done = called(home, "serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: port {port} on 127.0.0.1 is in use")
    assert "name another with PROXYGRAD_PORT or --port (0 takes any free one)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (home / "valkey").exists()


def test_a_directory_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = called(tmp_path / "file" / "home", "serve", "--port", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the data directory")
    assert done.stderr.count("\n") == 1


def test_a_store_that_cannot_be_opened_is_said_in_one_line(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = (tmp_path / "file" / "store").as_uri()
    done = called(home, "serve", "--port", "0", environ={"PROXYGRAD_STORE": store})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert store in done.stderr


def test_without_a_worker_s_packages_nothing_is_started(home: Path) -> None:
    """In this process: that it cannot find torch need not be true of the others."""
    environ = {**os.environ, "PROXYGRAD_HOME": str(home), "PROXYGRAD_PORT": "0"}
    environ.pop("REDIS_URL", None)
    stack = Stack(ServiceSettings.from_env(environ), environ, home / "logs")
    with (
        mock.patch.dict(sys.modules, {"torch": None}),
        pytest.raises(StackError, match=r"needs 'torch', .*'\.\[service,worker\]'"),
        stack,
    ):
        pytest.fail("it came up")
    assert not (home / "logs" / "worker.log").exists()


def test_an_address_that_others_reach_is_refused_as_long_as_there_is_no_key(home: Path) -> None:
    done = called(home, "serve", "--host", "0.0.0.0", "--port", "0")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "proxygrad keys create" in done.stderr


@pytest.mark.engine
def test_with_a_key_others_may_reach_it_and_only_who_has_it_may_ask(home: Path) -> None:
    token = called(home, "keys", "create", "me").stdout.strip()
    served = Running(home, "serve", "--host", "0.0.0.0", "--port", "0")
    try:
        url = served.url()
        assert httpx.get(f"{url}/v1/models").json()["code"] == "unauthorized"
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {token}"}).is_success
    finally:
        served.end()


def test_a_redis_that_is_named_but_not_there_is_said(home: Path) -> None:
    done = called(home, "serve", "--port", "0", environ={"REDIS_URL": "redis://127.0.0.1:1/0"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Redis answers at redis://127.0.0.1:1/0")
    assert done.stderr.count("\n") == 1


@pytest.mark.engine
def test_a_worker_that_cannot_start_ends_the_start_with_its_reason(home: Path) -> None:
    home.mkdir()
    (home / "models.toml").write_text("this is not TOML")
    done = run(home, "serve", "--port", "0")
    assert done.returncode == 1
    assert "models.toml" in done.stderr
    assert done.stderr.rstrip().endswith("the worker ended with exit status 1 before it was ready")
    assert "Traceback" not in done.stderr


def test_a_listening_socket_has_an_address_that_answers() -> None:
    with listen("127.0.0.1", 0) as listener:
        url = httpx.URL(address(listener))
        assert (url.scheme, url.host) == ("http", "127.0.0.1")
        socket.create_connection((url.host, url.port or 0)).close()
        with pytest.raises(PortInUse):
            listen("127.0.0.1", listener.getsockname()[1])


def test_an_answer_does_not_wait_until_its_header_is_acknowledged() -> None:
    """Nagle's algorithm off: it would hold the body of each answer on a kept connection for 40 ms."""
    with (
        listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)


@pytest.mark.engine
def test_an_interrupt_that_python_dropped_is_noticed(home: Path) -> None:
    """The exception of a signal is lost when it is raised while an object is finalized; the event is not."""
    interrupted = threading.Event()
    interrupted.set()
    environ = {**os.environ, "PROXYGRAD_HOME": str(home), "PROXYGRAD_PORT": "0"}
    environ.pop("REDIS_URL", None)
    stack = Stack(ServiceSettings.from_env(environ), environ, home / "logs", interrupted=interrupted)
    with pytest.raises(KeyboardInterrupt), stack:
        pytest.fail("the stack came up")
