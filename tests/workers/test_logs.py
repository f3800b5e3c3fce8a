"""Log lines: one line an entry, with its time and level, whatever stands in the message."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers import logs

TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z"
#: What a caller may try: a line of its own, another color, a bell, the end of a line in Unicode.
HOSTILE = "a\nERROR forged \x1b[31m \x07 \u2028 ü \ud800"


@pytest.fixture(params=["text", "json"])
def form(request: pytest.FixtureRequest) -> logs.LogFormat:
    found: logs.LogFormat = request.param
    return found


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Everything that `configure` changes, as it was."""
    hooks = sys.excepthook, threading.excepthook
    names = ["", "uvicorn.access", "py.warnings", *logs.LOGGERS]
    before = [(each, each.handlers, each.level, each.propagate) for each in map(logging.getLogger, names)]
    yield
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def request_id() -> Iterator[str]:
    token = logs.request.set(logs.RequestContext("r-1", time.monotonic()))
    yield "r-1"
    logs.request.reset(token)


def test_an_entry_is_one_line_whatever_stands_in_it(
    form: logs.LogFormat, request_id: str, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form)
    logging.getLogger("workers.queue").info("job %s", HOSTILE)
    (line,) = capfd.readouterr().err.split("\n")[:-1]
    assert line.isprintable()
    if form == "text":
        assert re.match(rf"{TIME} INFO \[r-1\] job a\\nERROR forged \\x1b\[31m ", line)
        assert "ü" in line
    else:
        entry = json.loads(line)
        assert re.fullmatch(TIME, entry.pop("time"))
        told = {"level": "INFO", "logger": "workers.queue", "request_id": "r-1"}
        assert entry == {**told, "message": f"job {HOSTILE}"}


def test_no_line_of_a_traceback_passes_for_an_entry(
    form: logs.LogFormat, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form)
    try:
        raise ValueError(f"{HOSTILE}\n2026-01-01T00:00:00.000Z INFO forged")
    except ValueError:
        logging.getLogger("service").exception("it failed")
    lines = capfd.readouterr().err.split("\n")[:-1]
    assert all(line.isprintable() for line in lines)
    if form == "text":
        assert re.fullmatch(rf"{TIME} ERROR it failed", lines[0])
        assert all(line.startswith("    ") for line in lines[1:])
    else:
        assert len(lines) == 1
        assert "Traceback" in json.loads(lines[0])["traceback"]


def test_a_request_has_a_line_of_its_own_on_standard_output(
    form: logs.LogFormat, request_id: str, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form, access_logger="uvicorn.access")
    logging.getLogger("uvicorn.access").setLevel(logging.NOTSET)  # servers of other tests have set another
    args = ("192.0.2.1:5", "GET", "/v1/models?x=\x1b", "1.1", 200)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *args)
    said = capfd.readouterr()
    (line,), errors = said.out.split("\n")[:-1], said.err
    assert errors == ""
    if form == "text":
        request = re.escape(r'192.0.2.1:5 - "GET /v1/models?x=\x1b HTTP/1.1" 200')
        assert re.fullmatch(rf"{TIME} INFO \[r-1\] {request} [\d.]+ ms", line)
    else:
        entry = json.loads(line)
        assert entry["duration_ms"] >= 0
        told = {"request_id": "r-1", "client": "192.0.2.1:5", "method": "GET", "status": 200}
        assert {**entry, **told, "target": "/v1/models?x=\x1b"} == entry


_CRASHING = """
import sys, threading, warnings
from workers import logs
logs.configure(sys.argv[1])
warnings.warn("slow")
thread = threading.Thread(target=lambda: [][1])
thread.start()
thread.join()
1 / 0
"""


def test_what_nobody_caught_is_an_entry_as_well(form: logs.LogFormat) -> None:
    command = [sys.executable, "-c", _CRASHING, form]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert ended.returncode == 1
    entries = [line for line in ended.stderr.splitlines() if not line.startswith("    ")]
    assert len(entries) == 3, ended.stderr
    for said, entry in zip(("slow", "IndexError", "ZeroDivisionError"), entries, strict=True):
        assert said in entry
        assert re.match(TIME, json.loads(entry)["time"] if form == "json" else entry)


def test_others_log_nothing_below_a_warning(form: logs.LogFormat, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure(form)
    logging.getLogger("httpx").info("HTTP Request: POST https://hooks.example.org/?token=secret")
    assert capfd.readouterr().err == ""
    logging.getLogger("httpx").warning("slow")
    assert "slow" in capfd.readouterr().err


def test_what_keeps_a_process_from_starting_is_one_line(
    form: logs.LogFormat, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form)
    assert logs.fail(ValueError("REDIS_URL is not set"), form) == 1
    (line,) = capfd.readouterr().err.split("\n")[:-1]
    assert line == "error: REDIS_URL is not set" if form == "text" else json.loads(line)["level"] == "ERROR"


@pytest.mark.parametrize(("value", "form"), [(None, "text"), ("json", "json"), ("xml", "text")])
def test_the_format_is_that_of_the_environment(value: str | None, form: str) -> None:
    assert logs.format_of({} if value is None else {"PROXYGRAD_LOG": value}) == form
