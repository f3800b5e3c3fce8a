"""A disk that is really full: an error that says so, nothing half, and work again once there is room."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workers.storage.store import StorageError, StorageFull, Store

REPOSITORY = Path(__file__).resolve().parents[3]
_MOUNTED = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'


def on_a_small_disk(directory: Path, *arguments: str) -> Any:
    """What `tests.support.full_disk` says, with a megabyte mounted at ``directory`` for it alone."""
    mounted = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNTED, "sh", str(directory)]
    try:
        subprocess.run([*mounted, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs `unshare` and unprivileged user namespaces")
    program = [sys.executable, "-m", "tests.support.full_disk", str(directory), *arguments]
    done = subprocess.run([*mounted, *program], cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
    return json.loads(done.stdout)


def test_the_store_says_so_and_stays_whole(tmp_path: Path) -> None:
    found = on_a_small_disk(tmp_path)
    lead = f"the artifact store file://{tmp_path} is full: no room for the 2000000 bytes of"
    assert found["said"] == [f"{lead} a/large", f"{lead} a/small"]
    assert found["kept"]
    assert found["names"] == ["a", "small"]
    assert found["refused"]
    assert found["again"]


@pytest.mark.engine
def test_the_job_fails_with_it_and_can_be_asked_again(redis_url: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="a slot computes with torch")
    found = on_a_small_disk(tmp_path, redis_url)
    assert found["problem"]["code"] == StorageFull.code == "storage_full"
    assert f"bytes of {found['id']}/0.png" in found["problem"]["detail"]
    assert found["left"] == ["filler"]
    assert found["state"] == "succeeded"


def test_a_write_that_fails_half_way_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """Where nothing can be mounted: a limit on the size of files ends a write in the middle too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write a/large.*File too large") as caught:
            store.put("a/large", bytes(2_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(caught.value, StorageFull)
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []
    assert store.put("a/large", bytes(2_000_000))
