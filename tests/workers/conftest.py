"""What tests of the workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from tests.support.expanded_batches import idle
from workers.batches.expander import BatchExpander
from workers.batches.repository import Batches
from workers.broker import limits
from workers.broker.scripts import source
from workers.jobs.repository import Jobs
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases
from workers.storage.store import Store


@pytest.fixture
def jobs(redis: Redis, store: Store) -> Jobs:
    """Jobs of an empty queue and an empty store."""
    return Jobs(redis, store)


@pytest.fixture
def batches(redis: Redis) -> Batches:
    """Batches of an empty queue."""
    return Batches(redis)


@pytest.fixture
def leases(redis: Redis) -> Leases:
    """Leases of an empty queue."""
    return Leases(redis)


@pytest.fixture
def janitor(redis: Redis) -> Janitor:
    """Who looks for what was lost in it."""
    return Janitor(redis)


@pytest.fixture
def expansion(redis: Redis, store: Store) -> BatchExpander:
    """Puts batches into it; nothing is computed."""
    return idle(redis, store)


@pytest.fixture
def set_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    """Sets a constant of `workers.broker.limits` for scripts that are made from then on."""

    def set_limit(name: str, value: int) -> None:
        monkeypatch.setattr(limits, name, value)
        source.cache_clear()

    yield set_limit
    monkeypatch.undo()
    source.cache_clear()
