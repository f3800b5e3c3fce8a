"""What tests of the workers share."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from redis import Redis

from workers.jobs import Jobs
from workers.storage import Store


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let idle slots look often whether they shall stop: most tests end with that."""
    if find_spec("torch") is not None:
        monkeypatch.setattr("workers.slots.POP_WAIT_S", 0.05)


@pytest.fixture
def jobs(redis: Redis, store: Store) -> Jobs:
    """Jobs of an empty queue and an empty store."""
    return Jobs(redis, store)
