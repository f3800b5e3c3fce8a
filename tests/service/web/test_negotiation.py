"""The `Accept` header, as RFC 9110 has it."""

from __future__ import annotations

import pytest

from service.web.negotiation import negotiated

BROWSER = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "png"),
        ("", "png"),
        ("*/*", "png"),
        ("image/*", "png"),
        (BROWSER, "png"),  # liked equally: the stored bytes
        ("image/webp", "webp"),
        ("IMAGE/WebP ; Q=0.5", "webp"),
        ("application/x-npy", "npy"),
        ("application/*, image/*;q=0.9", "npy"),
        ("image/png;q=0.3, image/webp;q=0.4", "webp"),
        ("image/png;q=0, image/*", "webp"),  # the more specific range counts
        ("image/*;q=0, */*;q=0.1", "npy"),
        ("*/*;q=0", None),
        ("text/html", None),
        ("image/jpeg, application/json;q=0.9", None),
        ("image/webp;q=2", None),  # no weight there is
        ("image/png;q=0.1234, image/webp;q=0.1", "webp"),
        ("nonsense, image/webp", "webp"),
        ("image/webp;v=1;q=0.2, image/png;q=0.1", "webp"),
        ("image/png;q=", None),
    ],
)
def test_the_best_form_for_a_header(accept: str | None, expected: str | None) -> None:
    assert negotiated(accept) == expected


def test_only_what_is_offered_is_given() -> None:
    assert negotiated("application/x-npy, image/webp;q=0.1", ("png", "webp")) == "webp"
    assert negotiated("application/x-npy", ("png", "webp")) is None
