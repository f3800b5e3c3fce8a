"""What is shown of a URL: the place, and nothing that may be a secret."""

from __future__ import annotations

import pytest

from proxygrad.protocol.addresses import without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user:secret@host:1/0", "redis://user:***@host:1/0"),
        ("redis://:se%40cret@host:1/0", "redis://:***@host:1/0"),
        ("rediss://secret@[::1]:1/0", "rediss://***@[::1]:1/0"),
        ("redis://host:1/0?password=secret&db=1&x=secret", "redis://host:1/0?password=***&db=1&x=***"),
        ("redis://host:1/0?secret", "redis://host:1/0?***"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("unix://user:secret@/run/valkey.sock?db=2", "unix://user:***@/run/valkey.sock?db=2"),
        ("s3://id:secret@bucket/prefix", "s3://id:***@bucket/prefix"),
        ("localhost:6379", "localhost:6379"),
    ],
)
def test_the_place_is_shown_and_no_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        # As people paste passwords: nothing in them is encoded.
        "redis://:S3/CRET@host:6379/0",
        "redis://user:S3/CRET@host:6379/0",
        "redis://S3/CRET:S3@host:6379/0",
        "redis://:S3#CRET@host:6379/0",
        "redis://:S3?CRET@host:6379/0",
        "redis://:S3@CRET@host:6379/0",
        "redis://:S3:CRET@host:6379/0",
        "redis://:S3[CRET@host:6379/0",
        "redis://host:6379/0?password=S3@CRET",
        "redis://host:6379/0?password=S3#CRET",
        "redis://host:6379/0#S3CRET",
        # Without the host.
        "redis://:S3/CRET",
        "redis://:S3CRET",
        "redis://user:S3CRET",
        "user:S3CRET@host",
        "",
    ],
)
def test_a_secret_is_hidden_however_it_is_written(url: str) -> None:
    shown = without_secrets(url)
    assert "S3" not in shown
    assert "CRET" not in shown
    assert "***" in shown or "#" in url
