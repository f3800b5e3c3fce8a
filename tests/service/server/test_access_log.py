"""The access log shows neither keys nor control characters."""

from __future__ import annotations

import logging
import time

import pytest

from service.server.access_log import redacted, without_secrets

KEY = f"pg_{'0a' * 6}_{'1b' * 32}"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/models?limit=3", "/v1/models?limit=3"),
        (f"/v1/models?x={KEY}", "/v1/models?x=***"),
        (f"/v1/models/{KEY}", "/v1/models/***"),
        (f"/v1/models?x={KEY.replace('_', '%5F')}", "/v1/models?x=***"),
        (
            "/v1/models?api_key=sk-123&limit=3&Access-Token=t",
            "/v1/models?api_key=***&limit=3&Access-Token=***",
        ),
        ("/v1/models?token", "/v1/models?token"),
    ],
)
def test_secrets_of_a_request_are_hidden(target: str, shown: str) -> None:
    assert redacted(target) == shown


def test_it_takes_no_longer_for_what_is_made_to_take_long() -> None:
    began_s = time.thread_time()
    for query in ("key" * 5000, "key=" * 4000, "&" * 16_000, "pg_" * 5000):
        redacted(f"/v1/models?{query}")
    assert time.thread_time() - began_s < 0.2


def test_control_characters_of_an_address_are_escaped() -> None:
    args = ("\x1b[31m1.2.3.4\n", "GET", f"/livez?{KEY}", "1.1", 200)
    record = logging.LogRecord("x", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', args, None)
    assert without_secrets(record)
    assert record.getMessage() == r'\x1b[31m1.2.3.4\n - "GET /livez?*** HTTP/1.1" 200'
