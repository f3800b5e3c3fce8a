"""The quick parts of the stages of LDAM, and what they measure with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.reproduction.__main__ import shared_folder
from benchmarks.reproduction.chains import chains, each_class
from benchmarks.reproduction.handwriting import Judge, nearest
from benchmarks.reproduction.stage import Context, load_stage
from proxygrad import load

pytestmark = pytest.mark.engine


@pytest.fixture
def shared() -> Path:
    folder = shared_folder()
    if folder is None or not (folder / "data" / "mnist").is_dir():
        pytest.skip("no MNIST in the folder that PROXYGRAD_SHARED names")
    return folder


def test_chains_repeat_and_the_discriminator_leads_them() -> None:
    network = load("digits")
    discriminator = network.discriminator
    assert discriminator is not None
    labels = each_class(1)
    free, again, led = (
        chains(network, labels, discriminator, weight, seed=0, steps=16) for weight in (0.0, 0.0, 0.75)
    )
    assert torch.equal(free, again)
    assert led.shape == (10, 1, 32, 32)
    assert 0 <= led.min() < led.max() <= 1
    with torch.no_grad():
        assert discriminator(led).mean() > discriminator(free).mean() + 1
        for images in (free, led):
            logits = network.activations(images, "output")
            assert logits.diagonal().mean() > logits.mean() + 1


def test_the_nearest_row() -> None:
    others = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    distances, numbers = nearest(torch.tensor([[3.0, 3.0], [0.0, -2.0]]), others)
    assert distances.tolist() == pytest.approx([1, 2])
    assert numbers.tolist() == [1, 0]


@pytest.mark.parametrize("side_px", [28, 32])
def test_a_judge_gives_probabilities(side_px: int) -> None:
    judge, images = Judge(side_px), torch.rand(10, 1, side_px, side_px)
    each = torch.stack([judge.confidence(images, torch.full((10,), label)) for label in range(10)])
    torch.testing.assert_close(each.sum(dim=0), torch.ones(10))


@pytest.mark.soak
@pytest.mark.parametrize("name", ["langevin_tradeoff", "langevin_averaging"])
def test_the_quick_part_of_a_stage(name: str, shared: Path) -> None:
    told: list[int] = []
    report = load_stage(name).run(Context(True, shared, lambda done, total, text: told.append(done)))
    assert told == sorted(told)
    verdicts = {claim.statement: claim.verdict for claim in report.claims}
    assert len(verdicts) == len(report.claims) >= 1
    if name == "langevin_tradeoff":
        assert report.claims[1].verdict == "holds"  # the second classifier's
