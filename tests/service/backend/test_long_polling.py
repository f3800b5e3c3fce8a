"""How long a request asks to wait."""

from __future__ import annotations

import pytest

from service.backend.long_polling import preferred_wait_s


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("", None),
        ("respond-async", None),
        ("wait=10", 10),
        ('respond-async, Wait = "7"; foo', 7),
        ("wait=600", 60),
        ("wait=-1", None),
        ("wait=ten", None),
        ("wait=" + "9" * 5000, None),
    ],
)
def test_the_preference_is_read_as_rfc_7240_has_it(header: str | None, wait_s: int | None) -> None:
    assert preferred_wait_s(header) == wait_s
