"""`proxygrad batch` against a gateway behind a real server; on a whole service: tests/service/client."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from fastapi import FastAPI

from proxygrad.errors import InvalidRequest
from service.cli import batch
from service.client import Batch, CannotSave, Client, Invalid
from tests.service.conftest import Http
from tests.support.http_server import serving

WORDS = ["digits", "layer3"]


@pytest.fixture
def url(served: Http, app: FastAPI) -> Iterator[str]:
    with serving(app) as url:
        yield url


def typed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    batch.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("text", "units"), [("all", "all"), ("0-63", range(64)), ("7-7", range(7, 8)), ("9, 3,5", [9, 3, 5])]
)
def test_units_as_they_are_typed(text: str, units: object) -> None:
    assert typed(*WORDS, "--units", text).units == units


@pytest.mark.parametrize("text", ["", "3-1", "1-2-3", "-1", "1;2", "x"])
def test_other_units_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        typed(*WORDS, f"--units={text}")
    assert "0-63" in capsys.readouterr().err


def test_without_waiting_the_id_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--units", "0-3", "--steps", "8", "--no-wait", "--url", url]
    assert batch.run(typed(*words)) == 0
    out = capsys.readouterr().out
    assert "4 waiting" in out
    assert "contact sheet" not in out
    assert batch.run(typed(*words, "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["id"] in out
    assert (answer["template"]["steps"], answer["counts"]["waiting"]) == (8, 4)


def test_one_that_was_canceled_is_no_success(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(url, environ={}) as client:
        other = client.batch(model="digits", layer="layer3", units=range(4))
        over = Event()

        def cancel() -> None:  # again and again: asking takes a cancellation back
            while not over.wait(0.1):
                other.cancel()

        canceler = Thread(target=cancel)
        canceler.start()
        output = tmp_path / "sheet.png"
        try:
            assert batch.run(typed(*WORDS, "--units", "0-3", "--url", url, "-o", str(output))) == 1
        finally:
            over.set()
            canceler.join()
    assert "4 canceled" in capsys.readouterr().out
    assert not output.exists()


def test_what_cannot_be_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="0 to 63"):
        batch.run(typed(*WORDS, "--units", "60-64", "--url", url))
    with pytest.raises(InvalidRequest, match="steps"):
        batch.run(typed(*WORDS, "--steps", "0", "--url", url))
    with pytest.raises(CannotSave, match=r"\.png or a \.webp"):
        batch.run(typed(*WORDS, "--url", url, "-o", str(tmp_path / "sheet.npy")))


@pytest.mark.parametrize(
    ("words", "valid"),
    [
        (["--columns", "0"], "columns 0 .* 1 to 120"),
        (["--width", "31"], "width 31 .* 32 to 256"),
        (["--width", "257"], "width 257 .* 32 to 256"),
        (["--width", "256", "--columns", "32"], "columns 32 .* 1 to 31"),
    ],
)
def test_a_sheet_out_of_bounds_is_refused_before_anything_is_asked(words: list[str], valid: str) -> None:
    with pytest.raises(InvalidRequest, match=valid):
        batch.run(typed(*WORDS, *words, "--url", "http://127.0.0.1:1"))


def test_ctrl_c_says_what_goes_on(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Batch, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Batch, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batch.run(typed(*WORDS, "--units", "0-3", "--url", url))
    with Client(url, environ={}) as client:
        (asked,) = client.batches()
    assert capsys.readouterr().err == f"goes on as {asked.id}\n"
