"""A fingerprint changes with whatever a model depends on, and with nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxygrad.errors import UnknownModel
from proxygrad.models import Catalog
from tests.support.configured_networks import save_weights, table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(tmp_path / "a.safetensors", 0)
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    (tmp_path / "d.safetensors").write_bytes(b"")
    more = 'classes = "names.txt"\ndiscriminator = "d.safetensors"\n'
    (tmp_path / "models.toml").write_text(table("a", weights="a.safetensors") + more)
    return tmp_path


def taken(folder: Path, name: str = "a") -> object:
    return Catalog.from_file(folder / "models.toml").fingerprint(name)


def test_it_is_the_same_as_long_as_nothing_changes(folder: Path) -> None:
    assert taken(folder) == taken(folder)
    assert taken(folder) != taken(folder, "digits")


@pytest.mark.parametrize("file", ["a.safetensors", "names.txt", "d.safetensors"])
def test_it_changes_with_a_file(folder: Path, file: str) -> None:
    before = taken(folder)
    os.utime(folder / file, ns=(0, 0))
    assert taken(folder) != before


def test_it_changes_with_the_table(folder: Path) -> None:
    before = taken(folder)
    with (folder / "models.toml").open("a") as file:
        file.write("mean = [0.5]\n")
    assert taken(folder) != before


def test_it_changes_with_the_builders_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynetworks.py").write_text("def build(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "models.toml").write_text('[models.a]\nbuilder = "mynetworks:build"\n')
    before = taken(tmp_path)
    os.utime(tmp_path / "mynetworks.py", ns=(0, 0))
    assert taken(tmp_path) != before


@pytest.mark.parametrize(
    "builder", ["nowhere:build", "nowhere.at.all:build", "torchvision:resnet18", "timm:resnet18", "broken"]
)
def test_what_cannot_be_found_has_one_too(tmp_path: Path, builder: str) -> None:
    (tmp_path / "models.toml").write_text(f'[models.a]\nbuilder = "{builder}"\nweights = "missing.pt"\n')
    before = taken(tmp_path)
    assert before == taken(tmp_path)
    (tmp_path / "missing.pt").write_bytes(b"")
    assert taken(tmp_path) != before


def test_a_model_nobody_knows_has_none(folder: Path) -> None:
    with pytest.raises(UnknownModel):
        taken(folder, "nobody")
