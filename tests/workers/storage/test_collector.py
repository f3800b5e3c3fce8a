"""What goes and what stays, on a real directory and a real Valkey."""

from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace

import pytest
from redis import Redis

from tests.support.artifacts import HOUR_S, age, directory, job_id, keep_answer, names, remember
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from workers.broker import keys, rq_names
from workers.broker.lock import WorkStopped
from workers.jobs.kinds.visualization import image_path
from workers.jobs.repository import Jobs
from workers.storage import collector as retention
from workers.storage import pins
from workers.storage.collector import GarbageCollector, RetentionPolicy
from workers.storage.paths import result_path
from workers.storage.pins import ArtifactPins
from workers.storage.store import Store

DAY_S = 24 * HOUR_S
NOTHING = RetentionPolicy(gigabytes=0.0)


def test_everything_is_kept_by_default(redis: Redis, store: Store) -> None:
    keep_answer(store, 0, age_s=1000 * DAY_S)
    collected = GarbageCollector(redis, store, RetentionPolicy()).collect()
    assert (collected.removed_bytes, collected.kept_answers) == (0, 1)
    assert store.exists(result_path(job_id(0)))


def test_by_age(redis: Redis, store: Store) -> None:
    old, young = keep_answer(store, 0, age_s=8 * DAY_S), keep_answer(store, 1, age_s=6 * DAY_S)
    collected = GarbageCollector(redis, store, RetentionPolicy(days=7)).collect()
    assert (collected.answers, collected.kept_answers) == (1, 1)
    assert names(store) == {result_path(young), image_path(young, 0)}
    assert not (directory(store) / old).exists()
    assert collected.kept_bytes == sum(each.size_bytes for each in store.list())


def test_by_size_the_oldest_first(redis: Redis, store: Store) -> None:
    ids = [keep_answer(store, unit, age_s=(2 + unit) * HOUR_S) for unit in range(4)]
    each_bytes = sum(stored.size_bytes for stored in store.list(ids[0]))
    collected = GarbageCollector(redis, store, RetentionPolicy(gigabytes=2.5 * each_bytes / 1e9)).collect()
    assert collected.answers == 2
    assert {stored.path.partition("/")[0] for stored in store.list()} == set(ids[:2])


def test_what_is_younger_than_an_hour_stays_however_little_is_kept(redis: Redis, store: Store) -> None:
    young = keep_answer(store, 0, age_s=0.9 * HOUR_S)
    keep_answer(store, 1, age_s=1.1 * HOUR_S)
    assert GarbageCollector(redis, store, NOTHING).collect().answers == 1
    assert store.exists(result_path(young))


def test_the_record_in_redis_goes_with_the_answer(redis: Redis, store: Store, jobs: Jobs) -> None:
    keep_answer(store, 0, age_s=2 * HOUR_S)
    remember(redis, 0)
    assert jobs.fetch(job_id(0)) is not None
    assert GarbageCollector(redis, store, NOTHING).collect().answers == 1
    assert jobs.fetch(job_id(0)) is None
    assert redis.zcard(rq_names.FINISHED_KEY) == 0
    assert redis.keys("proxygrad:deletion-lock:*") == []


def test_what_was_asked_for_within_the_hour_stays(redis: Redis, store: Store) -> None:
    kept = keep_answer(store, 0, age_s=2 * HOUR_S)
    ArtifactPins(redis).pin(kept)
    collected = GarbageCollector(redis, store, NOTHING).collect()
    assert (collected.answers, collected.kept_answers) == (0, 1)
    assert store.exists(image_path(kept, 0))


def test_a_job_that_waits_or_runs_keeps_everything(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(0), MODEL)
    store.put(image_path(job.id, 0), b"png")
    store.replace(f"{job.id}/checkpoint-1", b"state")
    age(store, job.id, DAY_S)
    redis.delete(*redis.keys("proxygrad:pin:*") or ["none"])
    assert GarbageCollector(redis, store, NOTHING).collect().removed_bytes == 0
    assert names(store) == {image_path(job.id, 0), f"{job.id}/checkpoint-1"}


def test_what_a_job_without_an_answer_left_goes_after_an_hour(redis: Redis, store: Store) -> None:
    for unit, age_s in ((0, 2 * HOUR_S), (1, 0.5 * HOUR_S)):
        store.put(image_path(job_id(unit), 0), b"png")
        store.replace(f"{job_id(unit)}/checkpoint-1", b"state")
        age(store, job_id(unit), age_s)
        redis.hset(keys.job_key(job_id(unit)), "state", "failed")
    collected = GarbageCollector(redis, store, RetentionPolicy()).collect()
    assert (collected.orphans, collected.removed_bytes) == (1, 8)
    assert {path.partition("/")[0] for path in names(store)} == {job_id(1)}
    assert redis.hget(keys.job_key(job_id(0)), "state") == b"failed"


def test_a_checkpoint_beside_an_answer_goes_alone(redis: Redis, store: Store) -> None:
    kept = keep_answer(store, 0)
    store.replace(f"{kept}/checkpoint-1", b"state")
    age(store, kept, 2 * HOUR_S)
    store.replace(f"{kept}/checkpoint-2", b"young")
    ArtifactPins(redis).pin(kept)
    assert GarbageCollector(redis, store, RetentionPolicy()).collect().checkpoints == 1
    assert names(store) == {result_path(kept), image_path(kept, 0), f"{kept}/checkpoint-2"}


def test_unfinished_writes_go_after_an_hour(redis: Redis, store: Store) -> None:
    folder = directory(store) / job_id(0)
    folder.mkdir()
    (folder / "0.png#1").write_bytes(b"half")
    age(store, job_id(0), 2 * HOUR_S)
    (directory(store) / job_id(1)).mkdir()
    (directory(store) / job_id(1) / "0.png#1").write_bytes(b"half")
    collected = GarbageCollector(redis, store, RetentionPolicy()).collect()
    assert (collected.unfinished, collected.removed_bytes) == (1, 4)
    assert names(store) == {f"{job_id(1)}/0.png#1"}
    assert not folder.exists()


def test_what_is_not_ours_is_not_touched(redis: Redis, store: Store) -> None:
    foreign = {"notes.txt", "notes#1", "photos/0.png", f"backup/{job_id(0)}/result.json"}
    for path in foreign:
        file = directory(store) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"mine")
    collected = GarbageCollector(redis, store, NOTHING, grace_s=-1.0).collect()  # no age is too young
    assert (collected.removed_bytes, collected.kept_bytes) == (0, 0)
    assert names(store) == foreign


def test_an_answer_that_changed_since_it_was_listed_stays(redis: Redis, store: Store) -> None:
    kept = keep_answer(store, 0, age_s=2 * HOUR_S)
    collector = GarbageCollector(redis, store, NOTHING)
    removing = collector._remove

    def asked_anew(artifacts: object, done: object) -> bool:
        store.delete(result_path(kept))
        keep_answer(store, 0)
        return removing(artifacts, done)  # type: ignore[arg-type]

    collector._remove = asked_anew  # type: ignore[method-assign]
    assert collector.collect().answers == 0
    assert store.exists(result_path(kept))


def test_one_round_at_a_time_and_one_line_about_it(
    redis: Redis, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keep_answer(store, 0, age_s=2 * HOUR_S)
    for _ in range(2):
        GarbageCollector(redis, store, NOTHING).round()
    (line,) = caplog.messages
    assert line.startswith("the collector removed 1 answers, 0 jobs' artifacts without an answer, ")
    keep_answer(store, 1, age_s=2 * HOUR_S)
    GarbageCollector(redis, store, NOTHING).round()  # the last one is too recent
    assert store.exists(result_path(job_id(1)))


def test_it_stops_with_its_worker(redis: Redis, store: Store) -> None:
    keep_answer(store, 0, age_s=2 * HOUR_S)
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(WorkStopped, match="the worker stops"):
        GarbageCollector(redis, store, NOTHING, stopping).collect()
    GarbageCollector(redis, store, NOTHING, stopping).round()
    assert store.exists(result_path(job_id(0)))


def test_a_store_larger_than_one_round_takes_several(
    redis: Redis, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MOST", 3)
    for unit in range(5):
        keep_answer(store, unit, age_s=(2 + unit) * HOUR_S)
    collector = GarbageCollector(redis, store, NOTHING)
    assert [collector.collect().answers for _ in range(3)] == [3, 2, 0]
    assert names(store) == set()


def test_a_claim_that_ends_in_mid_removal_leaves_no_record_without_images(
    redis: Redis, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record goes first; the rest is found as an orphan by the next round."""
    gone = keep_answer(store, 0, age_s=2 * HOUR_S)
    passed_s, monotonic, delete = [0.0], time.monotonic, store.delete
    clock = SimpleNamespace(monotonic=lambda: monotonic() + passed_s[0])
    monkeypatch.setattr(pins, "time", clock)

    def slow(path: str) -> None:
        delete(path)
        passed_s[0] += pins.LOCK_USE_S + 1

    monkeypatch.setattr(store, "delete", slow)
    collector = GarbageCollector(redis, store, NOTHING)
    assert collector.collect().answers == 0
    assert names(store) == {image_path(gone, 0)}
    assert collector.collect().orphans == 1
    assert names(store) == set()
