"""What tests of the workers share."""

from __future__ import annotations

import pytest
from redis import Redis

from workers.batches import Batches
from workers.jobs import Jobs
from workers.storage import Store


@pytest.fixture
def jobs(redis: Redis, store: Store) -> Jobs:
    """Jobs of an empty queue and an empty store."""
    return Jobs(redis, store)


@pytest.fixture
def batches(redis: Redis) -> Batches:
    """Batches of an empty queue."""
    return Batches(redis)
