"""The input of a job: stored once, whole, and waited for."""

from __future__ import annotations

import hashlib
import threading

import pytest
from redis import Redis

from proxygrad.errors import RenderCanceled
from workers.jobs import inputs
from workers.jobs.inputs import INPUT, put_input, read_input
from workers.storage.paths import artifact_path, job_of
from workers.storage.pins import ArtifactPins, DeletionLock
from workers.storage.store import Store

JOB = "0" * 32
PATH = artifact_path(JOB, INPUT)
DATA = b"pixels"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def pins(redis: Redis) -> ArtifactPins:
    return ArtifactPins(redis)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PATIENCE_S", 0.02)
    monkeypatch.setattr(inputs, "_LOOK_S", 0.001)


def nothing() -> None:
    """The run goes on."""


def test_what_is_stored_is_read(store: Store, pins: ArtifactPins) -> None:
    put_input(store, pins, JOB, DATA, DIGEST)
    assert store.get(PATH) == DATA
    assert read_input(store, JOB, DIGEST, pytest.fail) == DATA
    assert job_of(PATH) == JOB, "it goes with the artifacts of its job"


def test_one_that_is_there_is_left_alone(
    store: Store, pins: ArtifactPins, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_input(store, pins, JOB, DATA, DIGEST)
    monkeypatch.setattr(Store, "replace", lambda *_: pytest.fail("it was written again"))
    put_input(store, pins, JOB, DATA, DIGEST)


@pytest.mark.parametrize("damaged", [b"", b"pixel", b"pixels and more", b"Pixels"])
@pytest.mark.usefixtures("impatient")
def test_one_that_is_damaged_is_not_read_and_is_replaced(
    store: Store, pins: ArtifactPins, damaged: bytes
) -> None:
    store.put(PATH, damaged)
    assert read_input(store, JOB, DIGEST, nothing) is None
    put_input(store, pins, JOB, DATA, DIGEST)
    assert read_input(store, JOB, DIGEST, nothing) == DATA


@pytest.mark.usefixtures("impatient")
def test_one_that_never_comes_is_given_up(store: Store) -> None:
    waited: list[None] = []
    assert read_input(store, JOB, DIGEST, lambda: waited.append(None)) is None
    assert waited


def test_one_that_comes_late_is_read(store: Store, pins: ArtifactPins) -> None:
    """The gateway writes it just after it has submitted the job."""
    waited: list[None] = []

    def proceed() -> None:
        waited.append(None)
        if len(waited) == 2:
            put_input(store, pins, JOB, DATA, DIGEST)

    assert read_input(store, JOB, DIGEST, proceed) == DATA
    assert len(waited) == 2


def test_a_run_that_is_canceled_does_not_wait(store: Store) -> None:
    def canceled() -> None:
        raise RenderCanceled("canceled")

    with pytest.raises(RenderCanceled):
        read_input(store, JOB, DIGEST, canceled)


def test_it_is_written_after_a_deletion_that_had_begun(store: Store, pins: ArtifactPins) -> None:
    """Else the deletion would take it away."""
    store.put(PATH, DATA)
    lock = pins.lock_for_deletion(JOB)
    assert isinstance(lock, DeletionLock)
    writer = threading.Thread(target=put_input, args=(store, pins, JOB, DATA, DIGEST))
    writer.start()
    try:
        writer.join(0.15)
        assert writer.is_alive()
        store.delete(PATH)
        assert store.get(PATH) is None
    finally:
        pins.unlock(lock)
        writer.join(30)
    assert store.get(PATH) == DATA


@pytest.mark.usefixtures("impatient")
def test_a_deletion_that_does_not_end_is_not_waited_for_for_ever(store: Store, pins: ArtifactPins) -> None:
    assert isinstance(pins.lock_for_deletion(JOB), DeletionLock)
    put_input(store, pins, JOB, DATA, DIGEST)
    assert store.get(PATH) == DATA


def test_of_two_writers_each_leaves_it_whole(store: Store, pins: ArtifactPins) -> None:
    writers = [threading.Thread(target=put_input, args=(store, pins, JOB, DATA, DIGEST)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert store.get(PATH) == DATA
