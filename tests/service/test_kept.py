"""What was made lately is kept within a bound."""

from __future__ import annotations

from service.kept import Kept


def test_what_was_used_longest_ago_goes_first() -> None:
    kept: Kept[str, bytes] = Kept(10, len)
    kept.put("a", b"aaaa")
    kept.put("b", b"bbbb")
    assert kept.get("a") == b"aaaa"
    kept.put("c", b"cccc")
    assert [kept.get(key) for key in "abc"] == [b"aaaa", None, b"cccc"]


def test_what_is_larger_than_all_may_be_is_not_kept() -> None:
    kept: Kept[str, bytes] = Kept(10, len)
    kept.put("a", b"a")
    kept.put("large", b"x" * 11)
    assert (kept.get("a"), kept.get("large")) == (b"a", None)


def test_the_first_stays_where_two_make_the_same() -> None:
    kept: Kept[str, bytes] = Kept(10, len)
    kept.put("a", b"first")
    kept.put("a", b"other")
    assert kept.get("a") == b"first"
