"""What was used last is kept, and no more than the bound."""

from __future__ import annotations

from workers.latest import Latest


def test_the_one_that_was_not_used_for_longest_goes_first() -> None:
    latest: Latest[str, int] = Latest(2)
    latest.put("a", 1)
    latest.put("b", 2)
    assert latest.get("a") == 1
    latest.put("c", 3)
    assert [latest.get(key) for key in "abc"] == [1, None, 3]


def test_a_new_value_takes_the_place_of_the_old_one() -> None:
    latest: Latest[str, int] = Latest(2)
    latest.put("a", 1)
    latest.put("b", 2)
    latest.put("a", 3)
    latest.put("c", 4)
    assert [latest.get(key) for key in "abc"] == [3, None, 4]
