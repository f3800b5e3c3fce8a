"""Offending values are repeated so that any JSON reader can take them."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import JsonValue

from proxygrad.protocol.problems import FieldError
from service.web.validation import SHOWN_CHARACTERS, quoted, shown, summary


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**63 - 1, 2**63 - 1),
        (2**63, "a whole number of 64 bits"),
        pytest.param(10**5000, "a whole number of 16610 bits", id="5001 digits"),
        (0.5, 0.5),
        (math.inf, "Infinity"),
        ("text", "text"),
        ([8, 0], [8, 0]),
        ([1, math.nan], [1, "NaN"]),
        ([[1]], "[[1]]"),
        ({"a": 1, "b": math.inf}, {"a": 1, "b": "Infinity"}),
        ({"a": {}}, '{"a": {}}'),
        ([[None, True, math.nan, 2**70]], "[[null, true, NaN, a whole number of 71 bits]]"),
    ],
)
def test_values_are_repeated_or_described(value: object, expected: JsonValue) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (1.5, "1.5"),
        (2**63, "a whole number of 64 bits"),
        ("null", "'null'"),
        ([1, None], "[1, null]"),
        ({"a": None}, '{"a": null}'),
    ],
)
def test_sentences_have_values_in_the_words_of_json(value: object, expected: str) -> None:
    assert quoted(value) == expected


def test_long_and_deep_values_are_shortened() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    for value in (
        "x" * 10_000,
        ["x" * 10_000],
        list(range(10_000)),
        dict.fromkeys(map(str, range(999))),
        deep,
    ):
        assert (
            len(json.dumps(shown(value), ensure_ascii=False)) <= SHOWN_CHARACTERS + 6
        )  # quotes, brackets, …


def test_a_summary_has_three_flaws_in_words() -> None:
    found = [FieldError(location=["body", name], detail="is wrong") for name in "abcd"]
    assert summary(found[:1]) == "body.a: is wrong"
    assert summary(found) == "body.a: is wrong; body.b: is wrong; body.c: is wrong; and 1 more"
