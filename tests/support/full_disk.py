"""A program that meets a full disk: ``python -m tests.support.full_disk DIRECTORY [REDIS_URL]``.

``DIRECTORY`` is the store, on a file system of a megabyte. It says as JSON what `Store` did, or,
with Redis, what became of a job.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.support.job_calls import submit
from workers.storage.store import StorageError, StorageFull, Store

LARGE = 2_000_000


def write_and_go_on(directory: Path) -> dict[str, object]:
    """Write, fail for want of room, make room, and write again."""
    store = Store.from_url(directory.as_uri())
    store.put("a/small", b"small")
    said: list[str] = []
    for attempt in (store.put, store.replace):
        try:
            attempt("a/small" if attempt == store.replace else "a/large", bytes(LARGE))
        except StorageFull as error:
            said.append(str(error))
    kept = store.get("a/small")
    names = sorted(file.name for file in directory.rglob("*"))
    store.put("b/most", bytes(900_000))
    refused = False
    try:
        store.put("b/more", bytes(900_000))
    except StorageError:
        refused = True
    store.delete("b/most")
    return {
        "said": said,
        "kept": kept == b"small",
        "names": names,
        "refused": refused,
        "again": store.put("b/more", bytes(900_000)),
    }


def run_a_job(directory: Path, redis_url: str) -> dict[str, object]:
    """A job on a store without room, and the next one after there is some."""
    from tests.support.counting_engine import CountingEngine
    from tests.support.eventually import ended
    from tests.support.model_on_paper import MODEL, question
    from tests.support.worker_in_process import working
    from workers.broker.connection import connect
    from workers.jobs.repository import Jobs

    with connect(redis_url) as redis:
        store = Store.from_url(directory.as_uri())
        jobs = Jobs(redis, store)
        filler = directory / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError:
            pass  # as full as it gets
        with working(redis, store, CountingEngine()):
            first = ended(jobs, submit(jobs, question(1), MODEL)[0].id)
            left = [file.name for file in directory.rglob("*") if file.is_file()]
            filler.unlink()
            second = ended(jobs, submit(jobs, question(1), MODEL)[0].id)
        problem = first.problem.model_dump() if first.problem else None
        return {"problem": problem, "left": left, "state": second.state, "id": second.id}


if __name__ == "__main__":
    where = Path(sys.argv[1])
    print(json.dumps(run_a_job(where, sys.argv[2]) if len(sys.argv) > 2 else write_and_go_on(where)))
