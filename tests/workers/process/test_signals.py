"""A worker process hears every signal, whatever its main thread does and whichever thread got it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BEGIN = """
import signal, sys, threading, time
from workers.execution.drain import Drain
from workers.process.signals import drain_on_signals
drain = Drain(60.0)
drain_on_signals(drain)
"""

_TOLD = """
print("ready", flush=True)
drain.begun.wait()
print("draining", drain.hurried, flush=True)
while not drain.hurried:
    time.sleep(0.001)
print("hurrying", flush=True)
time.sleep(60)
"""

# The main thread sleeps on a lock, and no signal wakes it.
_ASLEEP = """
def tell():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), int(sys.argv[1]))

threading.Thread(target=tell, daemon=True).start()
print("draining", drain.begun.wait(30), flush=True)
"""


@contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command, root = [sys.executable, "-c", _BEGIN + code, *arguments], Path(__file__).resolve().parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_drains_two_hurry_three_end(number: signal.Signals) -> None:
    with program(_TOLD) as process:
        assert process.stdout is not None
        for said in ("ready", "draining False", "hurrying"):
            assert process.stdout.readline() == f"{said}\n"
            process.send_signal(number)
        assert process.wait(30) == 128 + number


def test_a_closed_terminal_drains_however_often_it_says_so_and_hurries_nobody() -> None:
    with program(_TOLD) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "draining False\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "hurrying\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which children inherit
    try:
        with program("print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)") as process:
            assert process.communicate(timeout=60)[0] == "True\n"
    finally:
        signal.signal(signal.SIGHUP, ignored)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_does_not_wake_the_main_thread_is_heard(number: signal.Signals) -> None:
    with program(_ASLEEP, str(int(number))) as process:
        assert process.communicate(timeout=60)[0] == "draining True\n"
        assert process.returncode == 0
