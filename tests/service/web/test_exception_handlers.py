"""What the log says of a request that failed: nothing that its caller could write."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.app import create_app
from service.settings import ServiceSettings
from tests.service.conftest import Http


def test_a_path_writes_no_lines_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    environ = {"REDIS_URL": f"unix://{tmp_path}/none.sock", "PROXYGRAD_HOME": str(tmp_path)}
    http = Http(create_app(ServiceSettings.from_env(environ)))
    assert http.get("/v1/models/%0AINFO:%20all%20is%20well%1B[2K").status_code == 503
    (record,) = caplog.records
    assert "GET /v1/models/%0AINFO%3A%20all%20is%20well%1B%5B2K" in record.getMessage()
    assert record.getMessage().isprintable()
