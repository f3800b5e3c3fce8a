"""Entity tags and byte ranges, as RFC 9110 has them."""

from __future__ import annotations

import pytest

from service.web.conditional import Unsatisfiable, matches, requested_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, False), ('"a"', True), ('"b"', False), ('"b", W/"a"', True), ("*", True), ("a", False)],
)
def test_if_none_match_compares_whole_tags(header: str | None, expected: bool) -> None:
    assert matches(header, '"a"') is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", range(10)),
        ("bytes=90-", range(90, 100)),
        ("bytes=90-500", range(90, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-500", range(100)),
        ("Bytes = 5 - 5", range(5, 6)),
        ("bytes=9-5", None),
        ("bytes=-", None),
        ("bytes=0-9,20-29", None),
        ("lines=0-9", None),
        ("bytes=a-b", None),
        ("bytes=" + "9" * 4000 + "-", None),
    ],
)
def test_a_range_within_a_hundred_bytes(header: str | None, expected: range | None) -> None:
    assert requested_range(header, None, '"a"', 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_beyond_the_end_cannot_be_had(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        requested_range(header, None, '"a"', 100)


@pytest.mark.parametrize(
    ("if_range", "honored"),
    [('"a"', True), ('"b"', False), ('W/"a"', False), ("Sat, 29 Oct 1994 19:43:31 GMT", False)],
)
def test_a_range_is_for_those_who_have_the_same_bytes(if_range: str, honored: bool) -> None:
    assert (requested_range("bytes=0-9", if_range, '"a"', 100) is not None) is honored
