"""`proxygrad demo`: on its own, and beside a service that runs already."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from service.cli import demo
from service.stack.data_directory import claimed
from tests.service.conftest import PNG, Http, Player
from tests.support.command_processes import run
from tests.support.http_server import serving


def test_a_service_that_has_the_directory_already_is_asked(
    served: Http,
    app: FastAPI,
    player: Player,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes: list[dict[str, Any]] = [{}, {"slope": 0.0}]
    for each in changes:
        player.succeed(str(served.ask(json=demo.REQUEST | each).json()["id"]))
    monkeypatch.setenv("PROXYGRAD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REDIS_URL", raising=False)
    pictures = tmp_path / "pictures"
    with serving(app) as url, claimed(tmp_path / "home") as claim:
        claim.announce(url)
        assert demo.run(argparse.Namespace(output=pictures)) == 0
    out, err = capsys.readouterr()
    assert f"runs there already; using it at {url}" in err
    assert err.count("comes from the store at once") == 2
    assert "achieved activation  3.5                     3.5" in out
    assert [path.read_bytes() for path in pictures.iterdir()] == [PNG, PNG]


@pytest.mark.engine
def test_it_computes_once_and_then_answers_from_the_store(tmp_path: Path) -> None:
    home, pictures = tmp_path / "home", tmp_path / "pictures"
    first = run(home, "demo", "-o", str(pictures))
    assert first.returncode == 0, first.stderr
    assert "ProxyGrad (slope 0.02)  plain (slope 0)" in first.stdout
    assert first.stdout.count("computed now") == 2
    assert "ProxyGrad: 100%" in first.stderr
    assert "plain    : 100%" in first.stderr
    made = {path.name: path.read_bytes() for path in pictures.iterdir()}
    assert len(made) == 2
    assert all(png.startswith(b"\x89PNG\r\n\x1a\n") for png in made.values())

    second = run(home, "demo", "-o", str(pictures))
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("from the store") == 2
    assert second.stderr.count("nothing is computed") == 2
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == made
