"""What a store holds, told apart; what is not a job's is not seen."""

from __future__ import annotations

import time

import pytest
from obstore.store import MemoryStore

from tests.support.artifacts import HOUR_S, age, job_id, keep_answer
from workers.jobs.kinds.visualization import image_path
from workers.storage.inventory import Inventory, JobArtifacts, artifacts_by_job
from workers.storage.paths import job_of, result_path
from workers.storage.store import Store


def inventory(store: Store, most: int = 100) -> Inventory:
    return Inventory.of(artifacts_by_job(store, lambda: None), time.time() - HOUR_S, most)


def test_whose_an_artifact_is() -> None:
    mine = job_id(0)
    assert job_of(f"{mine}/0.png") == mine
    for foreign in ("notes.txt", f"{mine}", f"{mine}/a/b", "0123/0.png", f"x/{mine}/0.png", f"{mine}0/0.png"):
        assert job_of(foreign) is None


def test_an_answer_an_orphan_and_a_stray_checkpoint(store: Store) -> None:
    answer = keep_answer(store, 0)
    store.replace(f"{answer}/checkpoint-1", b"12345")
    age(store, answer, 2 * HOUR_S)
    store.put(image_path(job_id(1), 0), b"123")
    age(store, job_id(1), 2 * HOUR_S)
    store.put("notes/readme.txt", b"not ours")
    found = inventory(store)
    assert found.answers == 1
    assert [each.job_id for each in found.oldest] == [answer]
    assert [each.job_id for each in found.orphans] == [job_id(1)]
    assert [each.path for each in found.strays] == [f"{answer}/checkpoint-1"]
    assert found.size_bytes == found.oldest[0].size_bytes + 3
    assert found.oldest[0].record_first[0].path == result_path(answer)


def test_what_is_young_is_counted_and_no_candidate(store: Store) -> None:
    keep_answer(store, 0)
    store.put(image_path(job_id(1), 0), b"123")
    found = inventory(store)
    assert (found.answers, found.oldest, found.orphans, found.strays) == (1, [], [], [])
    assert found.size_bytes > 1000


def test_the_age_of_an_answer_is_its_records(store: Store) -> None:
    answer = keep_answer(store, 0, age_s=5 * HOUR_S)
    store.replace(f"{answer}/checkpoint-1", b"")
    (held,) = artifacts_by_job(store, lambda: None)
    assert held.answered_at == pytest.approx(time.time() - 5 * HOUR_S, abs=60)
    assert held.touched_at == pytest.approx(time.time(), abs=60)


def test_only_the_oldest_are_held_in_memory_and_in_order(store: Store) -> None:
    ids = [keep_answer(store, unit, age_s=(10 + (unit * 7) % 20) * HOUR_S) for unit in range(20)]
    by_age = sorted(range(20), key=lambda unit: (unit * 7) % 20, reverse=True)
    assert [each.job_id for each in inventory(store, most=5).oldest] == [ids[unit] for unit in by_age[:5]]


def test_it_can_be_stopped_on_the_way(store: Store) -> None:
    keep_answer(store, 0)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        list(artifacts_by_job(store, stop))


def test_an_object_store_is_read_the_same_way() -> None:
    store = Store(MemoryStore(), "memory:///")
    store.put(image_path(job_id(0), 0), b"123")
    store.put(result_path(job_id(0)), b"{}")
    (held,) = artifacts_by_job(store, lambda: None)
    assert held == JobArtifacts.of(job_id(0), store.list(job_id(0)))
    assert held.size_bytes == 5


def test_an_empty_record_is_no_answer(store: Store) -> None:
    store.put(image_path(job_id(0), 0), b"123")
    store.put(result_path(job_id(0)), b"")
    age(store, job_id(0), 2 * HOUR_S)
    found = inventory(store)
    assert (found.answers, [each.job_id for each in found.orphans]) == (0, [job_id(0)])
