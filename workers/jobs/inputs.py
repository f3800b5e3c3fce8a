"""Inputs: what a job needs beside its spec, in the store under the job's id.

An input stands among the artifacts of its job, so what holds for those holds for it: it stays while the job
waits or runs, goes with the job when that is deleted or collected, and an hour after it was written where no
result came of it (`workers.storage.collector`). The spec has its digest.

It is written when the job has been submitted: what is refused leaves nothing, and no deletion can begin any
more that would take it away. A run waits a little for it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from workers.storage.paths import artifact_path
from workers.storage.pins import ArtifactPins
from workers.storage.store import Store

INPUT, REFERENCES = "input.npy", "references.npy"
#: How long a run waits for an input: a gateway writes it just after it has submitted the job.
PATIENCE_S = 10.0
_LOOK_S = 0.05


def put_input(
    store: Store, pins: ArtifactPins, job_id: str, data: bytes, sha256: str, name: str = INPUT
) -> None:
    """Store the input of a job that waits, unless it is there, whole.

    A deletion that had begun before may end first: waits `PATIENCE_S` for that at most. Raises
    `StorageError`.
    """
    until_s = time.monotonic() + PATIENCE_S
    while pins.is_locked(job_id) and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
    path = artifact_path(job_id, name)
    if not store.put(path, data) and not _fits(store.get(path), sha256):
        store.replace(path, data)


def read_input(
    store: Store, job_id: str, sha256: str, proceed: Callable[[], None], name: str = INPUT
) -> bytes | None:
    """The input of a job that runs; None where it is gone or damaged. ``proceed`` is called while it waits.

    Raises `StorageError`.
    """
    until_s = time.monotonic() + PATIENCE_S
    while True:
        data = store.get(artifact_path(job_id, name))
        if data is not None and _fits(data, sha256):
            return data
        if time.monotonic() >= until_s:
            return None
        proceed()
        time.sleep(_LOOK_S)


def _fits(data: bytes | None, sha256: str) -> bool:
    return data is not None and hashlib.sha256(data).hexdigest() == sha256
