"""What befalls a service over the years: files that a power failure damaged, records of other versions."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis

from tests.support.damaged_files import DAMAGES
from workers.broker.keys import JOB_PREFIX

#: Of the requests, so many come after something has happened.
PART = 0.05
#: What records did not always have, in them and in their results.
LATER_FIELDS = ("kind", "best", "priority", "cost", "losses")
LATER_MEASUREMENTS = ("robust_activation", "rank", "rank_of", "class_probabilities", "baseline", "images")
#: What a newer version may add.
NEWER: dict[str, Any] = {"added_later": {"by": ["a newer version", None]}}

T = TypeVar("T")


class Wear:
    """Damages a file of ``store``, or rewrites a record in ``redis``, before some requests."""

    def __init__(self, seed: int, redis: Redis, store: Path) -> None:
        self.happened: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._redis = redis
        self._store = store
        self._kinds: tuple[Callable[[], bool], ...] = (
            *(self._damaged, self._mixed_up, self._gone),
            *(self._older, self._newer),
        )

    def maybe(self) -> None:
        """Let something happen, rarely."""
        if self._random.random() < PART:
            kind = self._random.choice(self._kinds)
            self.happened[kind.__name__.strip("_")] += kind()

    def _damaged(self) -> bool:
        """A file is what a power failure leaves of it."""
        file = self._any(self._files())
        return file is not None and self._write(file, self._random.choice(DAMAGES), file)

    def _mixed_up(self) -> bool:
        """A file holds what another one should."""
        files = self._files()
        file, other = self._any(files), self._any(files)
        return file is not None and other is not None and self._write(file, bytes, other)

    def _gone(self) -> bool:
        """Redis has forgotten a job that ended, as it does after a week."""
        key = self._ended()
        return key is not None and bool(self._redis.delete(key))

    def _older(self) -> bool:
        """An earlier version has written a record."""
        key = self._ended()
        if key is None or self._redis.hget(key, "kind") == b"attribution":  # records had a kind before those
            return False
        self._redis.hdel(key, *LATER_FIELDS)
        self._rewrite(key, "result", lambda result: [result.pop(name, None) for name in LATER_MEASUREMENTS])
        return True

    def _newer(self) -> bool:
        """A newer version has."""
        key = self._ended()
        if key is None:
            return False
        self._redis.hset(key, mapping={"added_later": "1"})
        for name in ("result", "spec"):
            self._rewrite(key, name, lambda document: document.update(NEWER))
        return True

    def _write(self, file: Path, change: Callable[[bytes], bytes], source: Path) -> bool:
        with suppress(FileNotFoundError):  # a worker has removed it meanwhile
            file.write_bytes(change(source.read_bytes()))
            return True
        return False

    def _rewrite(self, key: bytes, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        text = self._redis.hget(key, name)
        if text is not None:
            document = json.loads(text)
            change(document)
            self._redis.hset(key, name, json.dumps(document))

    def _files(self) -> list[Path]:
        return sorted(self._store.glob("*/*"))

    def _ended(self) -> bytes | None:
        """The record of a job that succeeded."""
        keys = sorted(self._redis.scan_iter(match=f"{JOB_PREFIX}{'[0-9a-f]' * 32}", count=1000))
        return self._any([key for key in keys if self._redis.hget(key, "state") == b"succeeded"])

    def _any(self, things: list[T]) -> T | None:
        return self._random.choice(things) if things else None
