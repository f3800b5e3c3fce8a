"""The bundled network is what its card says, and training is as repeatable as it says."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from proxygrad.cli import train_digits as command
from proxygrad.errors import ModelError, WeightsError
from proxygrad.models import digits as bundled
from proxygrad.training import digits as train_digits
from proxygrad.training.digits import Recipe, Split

CARD = bundled.WEIGHTS.with_suffix(".md")
#: Seconds where the whole recipe takes minutes; the same code path.
SHORT = replace(Recipe(), epochs=1, batch=16, attack_steps=1, phantoms=4, phantom_steps=2)


@pytest.fixture(scope="module")
def split() -> Split:
    pytest.importorskip("sklearn", reason="the images come with scikit-learn")
    return train_digits.load_split()


@pytest.fixture(scope="module")
def network() -> bundled.DigitsNet:
    return bundled.digits(weights=True)


def short_training(split: Split, seed: int) -> dict[str, torch.Tensor]:
    few = replace(split, images=split.images[:96], labels=split.labels[:96])
    return dict(train_digits.train(few, seed, SHORT, lambda epoch, loss: None).network.state_dict())


def test_the_file_fits_the_architecture_and_travels_lightly() -> None:
    bundled.digits().load_state_dict(load_file(bundled.WEIGHTS), strict=True)
    assert bundled.WEIGHTS.stat().st_size <= 1_000_000


def test_the_card_names_this_file() -> None:
    digest = hashlib.sha256(bundled.WEIGHTS.read_bytes()).hexdigest()
    assert digest in CARD.read_text(encoding="utf-8")


def test_held_out_accuracy_is_that_of_the_card(split: Split, network: bundled.DigitsNet) -> None:
    accuracy = train_digits.accuracy(network, split.held_out_images, split.held_out_labels)
    claimed = re.search(r"held out: (\d+) of (\d+)", CARD.read_text(encoding="utf-8"))
    assert claimed is not None
    correct, count = map(int, claimed.groups())
    assert count == len(split.held_out_labels)
    assert correct / count >= 0.98
    # One image may tip over on a processor that adds up in another order.
    assert accuracy * count == pytest.approx(correct, abs=1.01)


def test_the_split_is_stratified_disjoint_and_complete(split: Split) -> None:
    assert len(split.labels) + len(split.held_out_labels) == 1797
    shares = torch.bincount(split.held_out_labels) / torch.bincount(
        torch.cat([split.labels, split.held_out_labels])
    )
    assert shares.min() > 0.19
    assert shares.max() <= 0.2
    seen = {image.numpy().tobytes() for image in split.images}
    assert not seen & {image.numpy().tobytes() for image in split.held_out_images}


def test_images_are_ink_on_empty_paper_between_0_and_1(split: Split) -> None:
    assert split.images.shape[1:] == bundled.INPUT_SHAPE
    assert split.images.min() == 0
    assert split.images.max() == 1
    assert split.images.mean().item() == pytest.approx(bundled.MEAN[0], abs=0.001)
    assert split.images.std().item() == pytest.approx(bundled.STD[0], abs=0.001)


def test_each_held_out_image_has_its_own_logits(split: Split, network: bundled.DigitsNet) -> None:
    with torch.no_grad():
        logits = network(bundled.normalize(split.held_out_images[:20]))
    assert logits.shape == (20, len(bundled.CLASSES))
    assert torch.pdist(logits).min() > 0


def test_gray_is_no_digit(network: bundled.DigitsNet) -> None:
    with torch.no_grad():
        assert (network(bundled.normalize(torch.full((1, *bundled.INPUT_SHAPE), 0.5))) < 0).all()


@pytest.mark.parametrize(
    ("layer", "shape"), [("layer1", (16, 16, 16)), ("layer2", (32, 8, 8)), ("layer3", (64, 4, 4))]
)
def test_stages_end_in_a_rectifier(network: bundled.DigitsNet, layer: str, shape: tuple[int, ...]) -> None:
    outputs: list[torch.Tensor] = []
    with network.get_submodule(layer).register_forward_hook(
        lambda module, args, output: outputs.append(output)
    ):
        network(torch.randn(4, *bundled.INPUT_SHAPE, generator=torch.Generator().manual_seed(0)))
    assert outputs[0].shape == (4, *shape)
    assert (outputs[0] >= 0).all()
    assert (outputs[0] == 0).any()
    assert (outputs[0] > 0).any()


def test_a_truncated_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "digits.safetensors"
    broken.write_bytes(bundled.WEIGHTS.read_bytes()[:5000])
    monkeypatch.setattr(bundled, "WEIGHTS", broken)
    with pytest.raises(WeightsError, match=re.escape(str(broken))):
        bundled.digits(weights=True)


def test_training_repeats_exactly_and_leaves_the_global_generator_alone(split: Split) -> None:
    before = torch.get_rng_state()
    first, again, other = (short_training(split, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_attacks_stay_in_their_ball_and_raise_the_loss(split: Split, network: bundled.DigitsNet) -> None:
    images, labels = split.images[:32], split.labels[:32]
    radii = torch.linspace(0.5, 2.0, 32)
    attacked = train_digits.attack(network, images, labels, radii, 3, torch.Generator().manual_seed(0))
    assert ((attacked - images).flatten(1).norm(dim=1) <= radii + 1e-4).all()
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert train_digits.accuracy(network, attacked, labels) <= train_digits.accuracy(network, images, labels)
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(network(bundled.normalize(x)), labels)
            for x in (images, attacked)
        ]
    assert losses[1] > 2 * losses[0]


def test_phantoms_ascend_their_targets(network: bundled.DigitsNet) -> None:
    targets = train_digits.Targets.draw(16, torch.Generator().manual_seed(0))
    starts = train_digits.phantom_starts(32, torch.Generator().manual_seed(1))
    phantoms = train_digits.conjure(network, targets, SHORT, torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = (network.features(bundled.normalize(images)) for images in (starts, phantoms))
        gains = targets.logits(network.classify(after)) - targets.logits(network.classify(before))
        rises = targets.units(after) - targets.units(before)
    assert (gains > 0).all()
    assert rises.mean() > 0
    assert (rises == 0).any()  # dead on their start: plain ascent leaves them there


def test_targets_are_read_where_they_were_drawn() -> None:
    whole = torch.tensor([True, False])
    targets = train_digits.Targets(torch.tensor([3, 9]), torch.tensor([63, 5]), torch.tensor([0, 15]), whole)
    logits = torch.arange(40.0).view(4, 10)
    assert targets.logits(logits).tolist() == [3, 19]
    features = torch.arange(4 * 64 * 16.0).view(4, 64, 4, 4)
    assert targets.units(features).tolist() == [features[2, 63].mean().item(), features[3, 5, 3, 3].item()]


def test_the_command_reports_and_writes_what_it_trained(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = replace(split, images=split.images[:96], labels=split.labels[:96])
    monkeypatch.setattr(train_digits, "load_split", lambda: few)
    monkeypatch.setattr(train_digits, "Recipe", lambda: SHORT)
    out = tmp_path / "weights.safetensors"
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["--out", str(out), "--epochs", "1"])) == 0
    printed = capsys.readouterr().out
    assert hashlib.sha256(out.read_bytes()).hexdigest() in printed
    assert "held-out accuracy" in printed
    bundled.digits().load_state_dict(load_file(out), strict=True)


def test_a_place_that_cannot_be_written_is_named_before_training(tmp_path: Path) -> None:
    arguments = argparse.Namespace(out=tmp_path / "nowhere" / "w.safetensors", seed=0, epochs=1)
    with pytest.raises(ModelError, match="nowhere"):
        command.run(arguments)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModelError, match=r"scikit-learn.*pip install"):
        train_digits.load_split()
