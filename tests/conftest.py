"""Real parts for every test: a Valkey server, an artifact store, and shared models where they are."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client

from service.stack.valkey import EmbeddedValkey
from tests.support.command_processes import Running
from workers.broker.connection import connect
from workers.storage.store import Store

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """One thread for torch, here and in child processes: more of them mostly spin on networks this small.

    And SIGHUP as a terminal has it: under ``nohup`` children would inherit that it is ignored.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A server for the whole run, on a unix socket."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(valkey: EmbeddedValkey) -> str:
    """The server's URL, with nothing in it."""
    with connect(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def redis(redis_url: str) -> Iterator[redis_client.Redis]:
    """A client of the emptied server."""
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty artifact store in a directory of the test's own."""
    return Store.from_url((tmp_path / "artifacts").as_uri())


@pytest.fixture(scope="session")
def served_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `proxygrad serve` listens: gateway, worker and a Valkey of its own, one for the whole run."""
    stack = Running(tmp_path_factory.mktemp("served") / "home", "serve", "--port", "0")
    try:
        yield stack.url()
    finally:
        stack.end()


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The directory of shared weights; the test is skipped where it is not there."""
    return _shared("models") / "models"


@pytest.fixture(scope="session")
def shared_truth() -> Path:
    """The directory with published networks and data; the test is skipped where it is not there."""
    return _shared("truth", "data")


def _shared(*needed: str) -> Path:
    shared = Path(os.environ.get("PROXYGRAD_SHARED") or REPOSITORY.parent / "shared")
    for name in needed:
        if not (shared / name).is_dir():
            pytest.skip(
                f"{shared / name} is not there; set PROXYGRAD_SHARED to the directory that holds {name}/"
            )
    return shared
