"""``proxygrad train-discriminator`` as an operator meets it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from proxygrad.cli import train_discriminator
from proxygrad.cli.main import main
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.models import Catalog
from proxygrad.training.discriminator import DiscriminatorRecipe
from tests.support.configured_networks import save_weights, table

SMALL = [
    "--steps",
    "3",
    "--batch",
    "4",
    "--width",
    "2",
    "--hidden",
    "4",
    "--chains",
    "4",
    "--chain-steps",
    "1",
]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model of 8×8 gray images, and pictures for it."""
    (tmp_path / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for number in range(4):
        pixels = generator.integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    save_weights(tmp_path / "a.safetensors", 0)
    (tmp_path / "models.toml").write_text(table("a", weights="a.safetensors"))
    return tmp_path / "models.toml"


def words(models: Path, *more: str, images: str | None = None) -> list[str]:
    folder = models.parent
    where = ["--images", images or str(folder / "pictures"), "-o", str(folder / "d.safetensors")]
    return ["train-discriminator", "--model", "a", *where, "--models", str(models), *SMALL, *more]


def test_the_file_serves_its_model(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(models, "--seed", "3")) == 1
    printed = capsys.readouterr().out
    assert "4 images of 1x8x8; seed 3" in printed
    assert "step     3 of 3  loss 0." in printed
    assert "collapsed: the discriminator does no better than a coin" in printed
    trained = Discriminator.load(models.parent / "d.safetensors")
    assert trained.trained_with["learning_rate"] == 1e-4
    assert trained.trained_with["steps"] == 3
    with Image.open(models.parent / "d.png") as curves:
        assert curves.format == "PNG"
    first = (models.parent / "d.safetensors").read_bytes()
    main(words(models, "--seed", "3"))
    assert (models.parent / "d.safetensors").read_bytes() == first
    with models.open("a") as file:
        file.write('discriminator = "d.safetensors"\n')
    assert Catalog.from_file(models).load("a").info.discriminator == trained.digest


@pytest.mark.parametrize(
    ("more", "images", "message"),
    [
        (["--batch", "3"], None, "batch 3 with 4 chains"),
        (["--layer", "nowhere"], None, "unknown layer of model 'a': 'nowhere'"),
        ([], "nowhere", "nowhere is not there"),
        ([], "scikit-learn:digits", "images of shape"),
        (["-o", "nowhere/d.safetensors"], None, "there is no folder nowhere"),
        (["-o", "d.png"], None, "--out 'd.png'; valid: a name that ends in .safetensors"),
        (["--model", "b"], None, "unknown model 'b'"),
        (["--learning-rate", "nan"], None, "learning_rate nan"),
        (["--weight", "1.5"], None, "weight 1.5"),
    ],
)
def test_one_line_for_what_is_wrong(
    models: Path, capsys: pytest.CaptureFixture[str], more: list[str], images: str | None, message: str
) -> None:
    assert main(words(models, *more, images=images)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (models.parent / "d.safetensors").exists()


def test_every_number_of_the_recipe_is_an_option_that_names_its_default() -> None:
    recipe = DiscriminatorRecipe()
    assert set(train_discriminator._NUMBERS) == {each.name for each in fields(recipe)}
    for name, told in train_discriminator._NUMBERS.items():
        assert told.endswith(f"; default {getattr(recipe, name)}"), name
