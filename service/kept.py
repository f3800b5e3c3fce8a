"""What was made lately, kept in memory within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Values by key, at most ``most_bytes`` of those used last. Safe to share between threads."""

    def __init__(self, most_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._most_bytes = most_bytes
        self._size_of = size_of
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value, where it is still there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Keep the value, unless it is larger than all may be."""
        size = self._size_of(value)
        with self._lock:
            if key not in self._values and size <= self._most_bytes:
                self._values[key] = value
                self._size += size
            while self._size > self._most_bytes:
                self._size -= self._size_of(self._values.popitem(last=False)[1])
