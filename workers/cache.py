"""A least recently used (LRU) cache in memory, bounded by number of entries, by size, or by both."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LRUCache(Generic[Key, Value]):
    """The values that were used last, at most ``max_size`` of them. Safe to share between threads.

    With ``size_of``, the sum of their sizes is at most ``max_size`` instead; or ``max_bytes``, where that is
    given, beside the number. (`cachetools.LRUCache` has no lock and raises for values that are too large:
    wrapped for both it would be as much code.)
    """

    def __init__(
        self,
        max_size: int,
        size_of: Callable[[Value], int] | None = None,
        *,
        max_bytes: int | None = None,
    ) -> None:
        self._max_size = max_size
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value of the key; None where there is none any more."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Key, value: Value) -> None:
        """Set the value of the key. A value larger than the whole cache is not cached."""
        size = 1 if self._size_of is None else self._size_of(value)
        with self._lock:
            self._remove(key)
            if size > (self._max_size if self._max_bytes is None else self._max_bytes):
                return
            self._entries[key] = value, size
            self._size += size
            while self._is_over():
                self._remove(next(iter(self._entries)))

    def drop(self, key: Key) -> None:
        """Remove the key, if it is there."""
        with self._lock:
            self._remove(key)

    def _is_over(self) -> bool:
        if self._max_bytes is None:
            return self._size > self._max_size
        return self._size > self._max_bytes or len(self._entries) > self._max_size

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= entry[1]
