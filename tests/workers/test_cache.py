"""The LRU cache holds what was used last, and no more than its bound."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from workers.cache import LRUCache


def test_the_least_recently_used_goes_first() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_a_new_value_replaces_the_old_one() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    cache.put("c", 4)
    assert [cache.get(key) for key in "abc"] == [3, None, 4]


def test_a_dropped_value_is_gone_and_makes_room() -> None:
    cache: LRUCache[str, bytes] = LRUCache(10, len)
    cache.put("a", b"aaaaaa")
    cache.put("b", b"bbbb")
    cache.drop("a")
    cache.drop("a")
    cache.put("c", b"cccccc")
    assert [cache.get(key) for key in "abc"] == [None, b"bbbb", b"cccccc"]


def test_sizes_add_up_to_the_bound() -> None:
    cache: LRUCache[str, bytes] = LRUCache(10, len)
    cache.put("a", b"aaaa")
    cache.put("b", b"bbbb")
    assert cache.get("a") == b"aaaa"
    cache.put("c", b"cccc")
    assert [cache.get(key) for key in "abc"] == [b"aaaa", None, b"cccc"]


def test_a_value_larger_than_the_cache_is_not_cached_and_takes_the_place_of_none() -> None:
    cache: LRUCache[str, bytes] = LRUCache(10, len)
    cache.put("a", b"a")
    cache.put("large", b"x" * 11)
    assert (cache.get("a"), cache.get("large")) == (b"a", None)


def test_a_replaced_value_counts_once() -> None:
    cache: LRUCache[str, bytes] = LRUCache(10, len)
    for _ in range(5):
        cache.put("a", b"aaaa")
    cache.put("b", b"bbbb")
    assert [cache.get(key) for key in "ab"] == [b"aaaa", b"bbbb"]


def test_threads_may_share_it() -> None:
    cache: LRUCache[int, bytes] = LRUCache(100, len)

    def use(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(3000):
            key = chance.randrange(40)
            value = cache.get(key)
            assert value is None or len(value) == key
            cache.put(key, bytes(key))
            if chance.random() < 0.1:
                cache.drop(chance.randrange(40))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    entries = cache._entries
    assert sum(size for _, size in entries.values()) == cache._size <= 100


def test_number_and_bytes_are_both_bounded() -> None:
    cache: LRUCache[str, bytes] = LRUCache(2, len, max_bytes=10)
    for key in "abc":
        cache.put(key, b"xx")
    assert [cache.get(key) is not None for key in "abc"] == [False, True, True]
    cache.put("d", b"x" * 9)
    assert [cache.get(key) is not None for key in "bcd"] == [False, False, True]
    cache.put("e", b"x" * 11)
    assert [cache.get(key) is not None for key in "de"] == [True, False]
