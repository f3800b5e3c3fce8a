"""Models come when they are wanted, and leave when memory is short."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="networks are torch's")

from proxygrad.engine.engine import Engine
from proxygrad.networks.network import Network
from proxygrad.spec import Spec
from tests.support.configured_networks import BUILT, GO
from tests.support.eventually import at_once, until
from tests.support.model_caches import ONE, PLENTY, loaded, opened, stocked
from workers.models import memory_budget

pytestmark = pytest.mark.engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return stocked(tmp_path)


def test_the_one_wanted_longest_ago_leaves(folder: Path) -> None:
    shelf = opened(folder, "abc", 2 * ONE)
    for name in "abac":
        shelf.network(name)
    assert loaded(shelf) == {"a", "c"}
    shelf.network("b")
    assert loaded(shelf) == {"b", "c"}


def test_room_is_made_before_a_model_comes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = opened(folder, "ab", ONE)
    first = weakref.ref(shelf.network("a"))
    alive: list[bool] = []
    load = shelf._catalog.load

    def watched(name: str, device: str) -> Network:
        alive.append(first() is not None)
        return load(name, device)

    monkeypatch.setattr(shelf._catalog, "load", watched)
    gc.disable()
    try:
        shelf.network("b")
    finally:
        gc.enable()
    assert alive == [False]


def test_what_has_left_takes_no_memory_any_more_although_the_engine_served_it(folder: Path) -> None:
    shelf = opened(folder, "ab", ONE)
    with Engine() as engine:
        with shelf.lent("a") as network:
            first = weakref.ref(network)
            spec = Spec(model="a", layer=network.info.layers[0].name, unit=1, steps=2)
            engine.submit(network, spec).result(60)
            del network
        shelf.network("b")
        until(lambda: gc.collect() >= 0 and first() is None)


def test_what_is_lent_does_not_leave(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "PATIENCE_S", 0.05)
    shelf = opened(folder, "abc", ONE)
    with shelf.lent("a") as lent:
        shelf.network("b")  # beyond the budget, after a little patience
        shelf.network("c")
        assert "a" in loaded(shelf)
        assert shelf.network("a") is lent
    assert len(loaded(shelf)) == 1


def test_a_model_waits_for_those_in_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "PATIENCE_S", 60.0)
    shelf = opened(folder, "ab", ONE)
    found: list[set[str]] = []

    def want() -> None:
        shelf.network("b")
        found.append(loaded(shelf))

    with shelf.lent("a"):
        other = threading.Thread(target=want)
        other.start()
        time.sleep(0.1)
        assert loaded(shelf) == {"a"}
    other.join(60)
    assert found == [{"b"}]


def test_one_larger_than_the_budget_is_loaded_and_stays_until_another_comes(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = opened(folder, "ab", ONE // 2)
    first = shelf.network("a")
    assert shelf.network("a") is first
    assert "with model a, models take 0.0 MB of the 0.0 MB they may" in caplog.text
    shelf.network("b")
    assert loaded(shelf) == {"b"}


def test_many_at_once_load_a_model_once_and_do_not_hold_up_others(folder: Path) -> None:
    shelf = opened(folder, "a", PLENTY, builder="slow")
    ends: list[str] = []

    def want(name: str) -> None:
        shelf.network(name)
        ends.append(name)
        if name == "digits":
            GO.set()

    GO.clear()
    at_once(want, ["a"] * 8 + ["digits"])
    assert BUILT == {"slow": 1}
    assert ends[0] == "digits"


def test_many_users_of_many_models_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "PATIENCE_S", 0.05)
    shelf = opened(folder, "abcd", 2 * ONE)
    wrong: list[str] = []

    def use(first: int) -> None:
        for step in range(12):
            name = "abcd"[(first + step * (first + 1)) % 4]
            with shelf.lent(name) as network:
                if network.name != name or shelf._places[name].network is not network:
                    wrong.append(name)

    at_once(use, range(6))
    assert wrong == []
    assert len(loaded(shelf)) <= 2
    assert all(shelf._places[name].users == 0 for name in "abcd")
