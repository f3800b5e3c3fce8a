"""A worker around the counting engine that is killed just before it stores one of the artifacts.

``REDIS_URL STORE_URL NAME``: the last part of that artifact's path, such as ``2.png``.
"""

from __future__ import annotations

import os
import signal
import sys

from tests.support import counting_engine
from workers.storage.store import Store


def main(redis_url: str, store_url: str, name: str) -> int:
    put = Store.put

    def doomed(store: Store, path: str, data: bytes) -> bool:
        if path.endswith(f"/{name}"):
            os.kill(os.getpid(), signal.SIGKILL)
        return put(store, path, data)

    setattr(Store, "put", doomed)  # noqa: B010
    return counting_engine.main(redis_url, store_url, "1", "0.002")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
