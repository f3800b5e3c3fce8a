"""`proxygrad submit` against a gateway behind a real server."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import redis as redis_client
from fastapi import FastAPI

from proxygrad.cli import client_options, submit
from proxygrad.client import (
    Client,
    Failed,
    Refused,
    SaveError,
    ServiceUnreachable,
    Unauthorized,
    Visualization,
    retries,
)
from proxygrad.client.files import save
from proxygrad.errors import InvalidRequest
from service.auth import key_ring
from service.auth.keys import Keys
from tests.service.conftest import PNG, Http, Player
from tests.support.http_server import serving
from workers.broker.queue import watched_key

WORDS = ["digits", "layer3", "7"]


@pytest.fixture
def url(served: Http, app: FastAPI) -> Iterator[str]:
    with serving(app) as url:
        yield url


def asked(url: str, **settings: Any) -> Visualization:
    """The question of `WORDS`; not closed with its client, as nothing is asked of it any more."""
    with Client(url, environ={}) as client:
        return client.visualize(model="digits", layer="layer3", unit=7, **settings)


def when_followed(redis: redis_client.Redis, job_id: str, act: Callable[[str], None]) -> Thread:
    """Do that as soon as somebody listens to the job's events."""

    def watch() -> None:
        until_s = time.monotonic() + 30
        while not redis.exists(watched_key(job_id)) and time.monotonic() < until_s:
            time.sleep(0.01)
        act(job_id)

    thread = Thread(target=watch)
    thread.start()
    return thread


def typed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    submit.add_arguments(parser)
    return parser.parse_args(words)


def test_the_picture_is_saved_and_the_result_told(
    url: str, redis: redis_client.Redis, player: Player, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = asked(url, slope=0.0).id
    later = when_followed(redis, job_id, player.succeed)
    output = tmp_path / "new" / "unit.png"
    arguments = typed(*WORDS, "--slope", "0", "-o", str(output), "--url", url)
    assert submit.run(arguments) == 0
    assert output.read_bytes() == PNG
    later.join()
    out, bar = capsys.readouterr()
    assert "achieved activation  3.5" in out
    assert "after 2.50 s of work" in out
    assert str(output) in out
    assert "digits layer3 7: 100%" in bar
    assert [path.name for path in output.parent.iterdir()] == ["unit.png"]

    assert submit.run(typed(*WORDS, "--slope", "0", "-o", str(output), "--url", url, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["id"] == job_id
    assert submit.run(arguments) == 0
    assert "at once, from the store" in capsys.readouterr().out


def test_a_job_that_failed_is_an_error_with_its_reason(
    url: str, redis: redis_client.Redis, player: Player
) -> None:
    words = [*WORDS, "--url", url]
    submit.run(typed(*words, "--no-wait"))
    later = when_followed(redis, asked(url).id, player.fail)
    with pytest.raises(Failed, match=r"became infinite at step 3 \[lane_failed\]"):
        submit.run(typed(*words))
    later.join()


def test_without_waiting_the_id_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.run(typed(*WORDS, "--url", url, "--no-wait")) == 0
    assert capsys.readouterr().out == f"{asked(url).id} queued\n"


def test_what_the_service_refuses_is_an_error(url: str) -> None:
    with pytest.raises(Refused, match="0 to 63"):
        submit.run(typed("digits", "layer3", "64", "--url", url))


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for between two tries."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)


@pytest.mark.usefixtures("no_pauses")
def test_a_service_that_is_not_there_is_named_and_why_it_takes_so_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:1"):
        submit.run(typed(*WORDS, "--url", "http://127.0.0.1:1"))
    assert capsys.readouterr().err.count("trying again in 0.0 s") == 4


def test_a_value_outside_its_limits_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidRequest, match="steps"):
        submit.run(typed(*WORDS, "--steps", "0", "--url", "http://127.0.0.1:1"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "unit.png", tmp_path):
        with pytest.raises(SaveError, match=str(path)):
            save(path, PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_form_by_the_name_and_no_other_one(url: str, player: Player, tmp_path: Path) -> None:
    player.succeed(asked(url).id)
    output = tmp_path / "unit.webp"
    assert submit.run(typed(*WORDS, "--url", url, "-o", str(output))) == 0
    assert output.read_bytes().startswith(b"RIFF")
    with pytest.raises(SaveError, match=r"unit\.gif"):
        submit.run(typed(*WORDS, "--url", "http://127.0.0.1:1", "-o", str(tmp_path / "unit.gif")))


def test_url_and_key_may_stand_in_the_environment(
    url: str, redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)
    _, key = Keys(redis).create("of a test")
    monkeypatch.setenv("PROXYGRAD_URL", url)
    with pytest.raises(Unauthorized):
        submit.run(typed(*WORDS, "--no-wait"))
    assert submit.run(typed(*WORDS, "--no-wait", "--key", key)) == 0
    monkeypatch.setenv("PROXYGRAD_API_KEY", key)
    assert submit.run(typed(*WORDS, "--no-wait")) == 0
    assert capsys.readouterr().out.count("queued") == 2


def test_a_key_in_clear_is_warned_of_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with client_options.connected(typed(*WORDS, "--url", "http://lab.example", "--key", "pg_secret")):
        pass
    err = capsys.readouterr().err
    assert err.startswith("warning: the API key is sent unencrypted to lab.example")
    assert ("secret" in err, err.count("\n")) == (False, 1)


def test_ctrl_c_says_what_goes_on(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Visualization, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Visualization, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit.run(typed(*WORDS, "--url", url))
    assert capsys.readouterr().err == f"goes on as {asked(url).id}\n"


def test_threads_save_to_the_same_place(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 251 + ".png")
    begin, errors = Barrier(4), list[SaveError]()

    def go_on() -> None:
        begin.wait()
        for _ in range(50):
            try:
                save(place, PNG)
            except SaveError as error:
                errors.append(error)

    threads = [Thread(target=go_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    assert place.read_bytes() == PNG
