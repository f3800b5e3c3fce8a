"""How long a request asks to wait."""

from __future__ import annotations

import pytest
from redis import Redis

from service.backend.long_polling import preferred_wait_s
from service.problems import ProblemError
from tests.service.conftest import Http


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("", None),
        ("respond-async", None),
        ("wait=10", 10),
        ('respond-async, Wait = "7"; foo', 7),
        ("wait=600", 60),
        ("wait=" + "9" * 5000, 60),
        ("await=ten, waiting", None),
    ],
)
def test_the_preference_is_read_as_rfc_7240_has_it(header: str | None, wait_s: int | None) -> None:
    assert preferred_wait_s(header) == wait_s


@pytest.mark.parametrize(
    "header", ["wait", "wait=", "wait=abc", "wait=-1", "wait=1.5", "respond-async, wait=²"]
)
def test_a_wait_that_is_no_number_of_seconds_is_refused(header: str) -> None:
    with pytest.raises(ProblemError, match="whole number of seconds, such as wait=10") as refused:
        preferred_wait_s(header)
    field_error = refused.value.field_errors[0]
    assert field_error.location == ["header", "prefer"]
    assert (field_error.minimum, field_error.maximum) == (0, 60)


@pytest.mark.parametrize("path", ["/v1/visualizations", "/v1/batches"])
def test_nothing_is_queued_then(served: Http, redis: Redis, path: str) -> None:
    body: dict[str, object] = {"model": "digits", "layer": "layer3"}
    body |= {"unit": 7} if "vis" in path else {"units": [1]}
    refused = served("POST", path, json=body, headers={"Prefer": "wait"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert served.get(path).json()[path.rpartition("/")[2]] == []
