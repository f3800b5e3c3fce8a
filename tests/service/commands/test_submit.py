"""`proxygrad submit` against a gateway behind a real server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest
from fastapi import FastAPI

from proxygrad.errors import BadRequest
from service.client import Client, Refused, ServiceUnreachable
from service.commands import submit
from service.commands.following import JobFailed, followed
from tests.service.conftest import PNG, Http, Player
from tests.service.serving import serving

WORDS = ["digits", "layer3", "7"]


@pytest.fixture
def url(served: Http, app: FastAPI) -> Iterator[str]:
    with serving(app) as url:
        yield url


def typed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    submit.add_arguments(parser)
    return parser.parse_args(words)


def test_the_picture_is_saved_and_the_result_told(
    url: str, player: Player, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(url) as client:
        job_id = client.submit(model="digits", layer="layer3", unit=7, slope=0.0).id
    later = Timer(0.5, player.succeed, [job_id])
    later.start()
    output = tmp_path / "new" / "unit.png"
    arguments = typed(*WORDS, "--slope", "0", "-o", str(output), "--server", url)
    assert submit.run(arguments) == 0
    assert output.read_bytes() == PNG
    out, bar = capsys.readouterr()
    assert "achieved activation  3.5" in out
    assert "after 2.50 s of work" in out
    assert str(output) in out
    assert "digits layer3 7: 100%" in bar
    assert [path.name for path in output.parent.iterdir()] == ["unit.png"]

    assert submit.run(typed(*WORDS, "--slope", "0", "-o", str(output), "--server", url, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["id"] == job_id
    assert submit.run(arguments) == 0
    assert "at once, from the store" in capsys.readouterr().out


def test_a_job_that_failed_is_an_error_with_its_reason(url: str, player: Player) -> None:
    with Client(url) as client:
        asked = client.submit(model="digits", layer="layer3", unit=7)
        player.fail(asked.id)
        with pytest.raises(JobFailed, match=r"became infinite at step 3 \[lane_failed\]"):
            followed(client, asked, "")


def test_what_the_service_refuses_is_an_error(url: str) -> None:
    with pytest.raises(Refused, match="0 to 63"):
        submit.run(typed("digits", "layer3", "64", "--server", url))


def test_a_service_that_is_not_there_is_named() -> None:
    with pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:1"):
        submit.run(typed(*WORDS, "--server", "http://127.0.0.1:1"))


def test_a_value_outside_its_limits_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(BadRequest, match="steps"):
        submit.run(typed(*WORDS, "--steps", "0", "--server", "http://127.0.0.1:1"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "unit.png", tmp_path):
        with pytest.raises(submit.CannotSave, match=str(path)):
            submit.save(path, PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
