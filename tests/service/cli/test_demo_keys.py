"""`proxygrad demo` where the service asks for a key."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import redis as redis_client
from fastapi import FastAPI

from proxygrad.client import Unauthorized
from service.auth.keys import Keys
from service.cli import demo
from service.stack.data_directory import claimed
from tests.support.http_server import serving


@pytest.mark.parametrize("given", ["", " ", None, f"pg_{'0' * 12}_{'0' * 64}"])
def test_where_no_key_is_given_it_says_where_one_belongs(
    given: str | None,
    app: FastAPI,
    redis: redis_client.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Keys(redis).create("somebody")
    monkeypatch.setenv("PROXYGRAD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("PROXYGRAD_API_KEY", raising=False)
    if given is not None:
        monkeypatch.setenv("PROXYGRAD_API_KEY", given)
    wrong = given is not None and given.startswith("pg_")
    with serving(app) as url, claimed(tmp_path / "home") as claim:
        claim.announce(url)
        with pytest.raises(Unauthorized if wrong else demo.NeedsKey) as raised:
            demo.run(argparse.Namespace(output=tmp_path))
    assert ("PROXYGRAD_API_KEY" in str(raised.value)) != wrong
