"""A bar where somebody sees it, and none elsewhere."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from proxygrad.maximization import progress
from proxygrad.maximization.ascent import maximize
from proxygrad.maximization.progress import is_watched
from tests.support.networks import small


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that is drawn at every step, however fast."""
    monkeypatch.setattr(progress, "REFRESH_S", 0.0)


def shown(capsys: pytest.CaptureFixture[str], asked: bool | None) -> str:
    maximize(small(), ["conv2:1", "conv2:2"], steps=3, progress=asked)
    return capsys.readouterr().err


def test_there_is_none_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, None) == ""
    assert shown(capsys, False) == ""


def test_it_counts_the_steps_of_all_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 images: 100%" in shown(capsys, True)
    assert "6/6" in shown(capsys, True)


def test_a_terminal_shows_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert "6/6" in shown(capsys, None)


def test_a_notebook_shows_it_and_a_plain_ipython_without_terminal_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs: list[tuple[dict[str, object], bool]] = [({"IPKernelApp": {}}, True), ({}, False)]
    for config, expected in configs:
        shell = SimpleNamespace(config=config)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert is_watched() is expected


def test_own_callbacks_run_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    seen = list[tuple[int, int]]()
    maximize(small(), "conv2:1", steps=2, progress=True, on_step=lambda *at: seen.append(at))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert "2/2" in capsys.readouterr().err
