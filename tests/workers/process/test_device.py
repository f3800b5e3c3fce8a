"""The device is what was asked for, or the reason why not."""

from __future__ import annotations

from typing import get_args

import pytest

pytest.importorskip("torch", reason="devices are torch's")

import torch

from proxygrad.precision import Precision
from workers.errors import SettingsError
from workers.process.device import choose, choose_precision
from workers.settings import PRECISIONS

pytestmark = pytest.mark.engine


def devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda:0"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_choice(monkeypatch: pytest.MonkeyPatch, count: int, wanted: str, chosen: str) -> None:
    devices(monkeypatch, count)
    assert choose(wanted) == chosen


@pytest.mark.parametrize(
    ("count", "wanted", "said"),
    [
        (0, "cuda", "PROXYGRAD_DEVICE is 'cuda', but torch finds no CUDA device; valid here: auto, cpu"),
        (2, "cuda:2", "PROXYGRAD_DEVICE is 'cuda:2'; valid here: auto, cpu, cuda:0, cuda:1"),
    ],
)
def test_a_device_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, count: int, wanted: str, said: str
) -> None:
    devices(monkeypatch, count)
    with pytest.raises(SettingsError) as caught:
        choose(wanted)
    assert str(caught.value) == said


def test_precisions_are_those_of_the_engine() -> None:
    assert get_args(Precision) == PRECISIONS
    assert [choose_precision(each, "cpu") for each in ("auto", "float32", "bfloat16")] == [
        "auto",
        "float32",
        "bfloat16",
    ]


def test_a_precision_that_the_device_does_not_have() -> None:
    with pytest.raises(SettingsError, match=r"PROXYGRAD_PRECISION: precision 'tf32' needs a GPU"):
        choose_precision("tf32", "cpu")
