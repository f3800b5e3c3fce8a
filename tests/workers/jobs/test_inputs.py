"""The picture of a job: stored once and whole, read only if it is the one that the spec names."""

from __future__ import annotations

import hashlib

import pytest
from redis import Redis

from workers.jobs import inputs
from workers.jobs.inputs import INPUT, put_input, read_input
from workers.storage.paths import artifact_path
from workers.storage.pins import ArtifactPins
from workers.storage.store import Store

JOB, DATA = "a" * 32, b"levels"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PATIENCE_S", 0.2)


def no_hurry() -> None:
    """A run that nobody stops."""


def put(store: Store, redis: Redis) -> None:
    put_input(store, ArtifactPins(redis), JOB, DATA, SHA256)


def test_what_was_put_is_read(store: Store, redis: Redis) -> None:
    put(store, redis)
    put(store, redis)
    assert read_input(store, JOB, SHA256, no_hurry) == DATA


@pytest.mark.parametrize("damaged", [b"", DATA[:-1], b"others"])
def test_what_is_damaged_is_not_read_and_is_replaced(store: Store, redis: Redis, damaged: bytes) -> None:
    store.put(artifact_path(JOB, INPUT), damaged)
    assert read_input(store, JOB, SHA256, no_hurry) is None
    put(store, redis)
    assert read_input(store, JOB, SHA256, no_hurry) == DATA


def test_a_run_waits_for_what_comes_late(store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PATIENCE_S", 60.0)
    asked: list[int] = []

    def proceed() -> None:
        asked.append(1)
        if len(asked) == 2:
            put(store, redis)

    assert read_input(store, JOB, SHA256, proceed) == DATA
    assert len(asked) == 2


def test_a_run_that_may_not_go_on_stops_waiting(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PATIENCE_S", 60.0)

    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        read_input(store, JOB, SHA256, stop)
