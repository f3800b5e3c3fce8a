"""The curves of a training: a picture that is there, and an average without the bias of its start."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from proxygrad.errors import ModelError
from proxygrad.langevin.discriminator import Discriminator, DiscriminatorArchitecture
from proxygrad.training.discriminator import DiscriminatorTraining, TrainingStep
from proxygrad.training.loss_curve import draw_training, smoothed


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    discriminator = Discriminator(DiscriminatorArchitecture.suited_to((1, 8, 8), width=1, hidden=1))
    training = DiscriminatorTraining(discriminator, tuple(TrainingStep(0.5, 1.0, 0.5, 2.0) for _ in range(9)))
    draw_training(training, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (770, 770)
    with pytest.raises(ModelError, match="cannot be written to"):
        draw_training(training, tmp_path / "nowhere" / "curves.png")


def test_the_average_of_a_constant_is_the_constant() -> None:
    assert smoothed([3.0] * 200) == pytest.approx([3.0] * 200)
    assert smoothed([0.0] * 100 + [1.0] * 100)[-1] == pytest.approx(1, abs=0.01)
    assert smoothed([1.0, 0.0]) == [1.0, 0.0]
