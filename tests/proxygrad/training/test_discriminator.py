"""Training of a discriminator: real against generated, from a seed, with a word on how it ended."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from proxygrad.errors import InvalidRequest, ModelError, UnknownLayer
from proxygrad.langevin.discriminator import Discriminator, DiscriminatorArchitecture
from proxygrad.models import Catalog
from proxygrad.models import digits as bundled
from proxygrad.networks.network import Network
from proxygrad.training.discriminator import (
    Chains,
    DiscriminatorRecipe,
    TrainingStep,
    outcome,
    train_discriminator,
)

RECIPE = DiscriminatorRecipe(
    steps=30, batch=16, learning_rate=0.03, width=4, hidden=16, weight=0.2, chains=24, chain_steps=2
)


@pytest.fixture(scope="module")
def network() -> Network:
    """Each of three units answers to a bar at a place of its own."""
    linear = nn.Linear(64, 3)
    bars = torch.zeros(3, 8, 8)
    for unit in range(3):
        bars[unit, :, 2 * unit + 1] = 1
    with torch.no_grad():
        linear.weight.copy_(bars.flatten(1) - bars.flatten(1).mean(dim=1, keepdim=True))
        linear.bias.zero_()
    return Network(nn.Sequential(nn.Flatten(), linear), (1, 8, 8), 0, 1)


def real(count: int = 50) -> Tensor:
    """Smooth images: a bright half, left or right, at random."""
    generator = torch.Generator().manual_seed(3)
    images = 0.1 * torch.rand(count, 1, 8, 8, generator=generator)
    images[: count // 2, :, :, :4] += 0.8
    images[count // 2 :, :, :, 4:] += 0.8
    return images


def test_it_learns_to_tell_them(network: Network) -> None:
    seen: list[int] = []
    training = train_discriminator(
        network, real(), 0, RECIPE, progress=lambda step, measured: seen.append(step)
    )
    assert seen == list(range(1, 31))
    losses = [step.loss for step in training.history]
    assert losses[0] == pytest.approx(0.693, abs=0.1)
    assert sum(losses[-5:]) / 5 < 0.4
    other = 0.1 * torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    other[..., :4] += 0.8
    noise = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert training.discriminator(other).mean() > training.discriminator(noise).mean() + 1
    assert not training.discriminator.training
    assert training.discriminator.trained_with["images"] == 50
    assert training.discriminator.trained_with["seed"] == 0


def test_a_seed_gives_the_same_and_leaves_the_global_generator_alone(network: Network) -> None:
    before = torch.get_rng_state()
    short = replace(RECIPE, steps=3)
    first, again, other = (train_discriminator(network, real(), seed, short) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.discriminator.digest == again.discriminator.digest != other.discriminator.digest
    assert first.history == again.history


def test_bytes_are_pixels(network: Network) -> None:
    levels = (real() * 255).round().to(torch.uint8)
    short = replace(RECIPE, steps=2)
    of_bytes = train_discriminator(network, levels, 0, short)
    of_floats = train_discriminator(network, levels.float() / 255, 0, short)
    assert of_bytes.discriminator.digest == of_floats.discriminator.digest


def chains(network: Network, weight: float, count: int = 60) -> tuple[Tensor, Tensor, Discriminator]:
    """Images of some chains after a while, their activations, and a discriminator that likes bright ones."""
    discriminator = Discriminator(DiscriminatorArchitecture.suited_to((1, 8, 8), width=1, hidden=1)).eval()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.fill_(0.1)
    recipe = replace(
        RECIPE, chains=count, batch=2 * count, weight=weight, restarts=0, noise=0, chain_steps=20
    )
    pool = Chains(network, "output", recipe, torch.Generator().manual_seed(0))
    before = network.activations(pool._images, "1")[torch.arange(count), pool._targets]
    pool.draw(count, discriminator)
    after = network.activations(pool._images, "1")[torch.arange(count), pool._targets]
    return pool._images, after - before, discriminator


def test_chains_ascend_their_unit_and_stay_in_range(network: Network) -> None:
    images, gain, _ = chains(network, weight=0)
    assert (gain > 0).all()
    assert 0 <= images.min() < images.max() <= 1


def test_the_weight_leads_them_to_what_the_discriminator_likes(network: Network) -> None:
    (free, gain, discriminator), (led, less, _) = chains(network, 0), chains(network, 0.9)
    with torch.no_grad():
        assert discriminator(led).mean() > discriminator(free).mean()
    assert led.mean() > free.mean() + 0.1
    assert less.mean() < gain.mean()


def test_some_chains_start_anew(network: Network) -> None:
    discriminator = Discriminator(DiscriminatorArchitecture.suited_to((1, 8, 8), width=1, hidden=1))
    for restarts, anew in ((0.0, False), (1.0, True)):
        recipe = replace(RECIPE, restarts=restarts, step_size=0.0, noise=0.0)
        pool = Chains(network, "output", recipe, torch.Generator().manual_seed(0))
        before = pool._images.clone()
        pool.draw(recipe.chains, discriminator)
        assert ((pool._images != before).flatten(1).any(dim=1) == anew).all()


class Root(nn.Module):
    """Its gradient is infinite or no number at most images."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1)[:, :3] - 0.5).sqrt()


def test_a_model_without_finite_gradients_is_named() -> None:
    network = Network(nn.Sequential(Root()), (1, 8, 8), 0, 1)
    with pytest.raises(ModelError, match="step 1 of 2: the loss is nan"):
        train_discriminator(network, real(), 0, replace(RECIPE, steps=2))


@pytest.mark.parametrize("layer", ["0", "1", "output"])
def test_units_of_any_kind_of_layer(layer: str) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Flatten(), nn.Linear(72, 3)))
    network = Network(module, (1, 8, 8), 0, 1)
    training = train_discriminator(network, real(), 0, replace(RECIPE, steps=1), layer=layer)
    assert training.discriminator.trained_with["layer"] == layer


@pytest.mark.parametrize(
    ("loss", "told", "expected"),
    [
        (0.4, 0.8, "balanced"),
        (0.01, 1.0, "won"),
        (0.69, 0.6, "learned nothing"),
        (0.6, 0.5, "learned nothing"),
    ],
)
def test_how_it_ended(loss: float, told: float, expected: str) -> None:
    """By the last quarter alone."""
    history = tuple(
        TrainingStep(0.5, 0.75, 0.75, 0.0) if step < 15 else TrainingStep(loss, told, told, 0.0)
        for step in range(20)
    )
    assert outcome(history) == expected


def test_a_discriminator_that_wins_says_so(network: Network) -> None:
    """Of images that no chain makes."""
    checkers = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float().expand(8, 1, 8, 8)
    recipe = replace(RECIPE, steps=40, learning_rate=0.1, hidden=128, weight=0.0, chain_steps=1)
    training = train_discriminator(network, checkers, 0, recipe)
    assert training.outcome == "won"


def test_a_discriminator_that_does_not_learn_says_so(network: Network) -> None:
    training = train_discriminator(network, real(), 0, replace(RECIPE, steps=20, learning_rate=1e-9))
    assert training.outcome == "learned nothing"


def test_what_cannot_be_trained_on(network: Network) -> None:
    with pytest.raises(InvalidRequest, match=r"images of shape \(5, 3, 8, 8\); .* needs \(N, 1, 8, 8\)"):
        train_discriminator(network, torch.zeros(5, 3, 8, 8), 0, RECIPE)
    with pytest.raises(InvalidRequest, match="at least 1"):
        train_discriminator(network, torch.zeros(0, 1, 8, 8), 0, RECIPE)
    with pytest.raises(InvalidRequest, match="values from 0 to 255; valid: 0 to 1, or uint8"):
        train_discriminator(network, torch.tensor([0.0, 255.0] * 32).view(1, 1, 8, 8), 0, RECIPE)
    with pytest.raises(InvalidRequest, match="values from nan"):
        train_discriminator(network, torch.full((1, 1, 8, 8), torch.nan), 0, RECIPE)
    with pytest.raises(UnknownLayer):
        train_discriminator(network, real(), 0, RECIPE, layer="nowhere")
    with pytest.raises(InvalidRequest, match="batch 7"):
        DiscriminatorRecipe(batch=7)


def test_the_bundled_one_is_what_its_card_says() -> None:
    pytest.importorskip("sklearn", reason="the images come with scikit-learn")
    from proxygrad.training.digits import load_split

    card = bundled.WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    data = bundled.DISCRIMINATOR.read_bytes()
    assert hashlib.sha256(data).hexdigest() in card
    assert len(data) <= 100_000
    network = Catalog.from_file(None).load("digits")
    discriminator = network.discriminator
    assert discriminator is not None
    assert discriminator.trained_with["model_digest"] == network.info.digest
    claimed = re.search(r"taken for real \| (\d+) of (\d+)", card)
    assert claimed is not None
    images = load_split().held_out_images
    assert len(images) == int(claimed[2])
    recipe = DiscriminatorRecipe(chains=8, batch=16, weight=0, restarts=0, chain_steps=8)
    generated, _ = Chains(network, "fc", recipe, torch.Generator().manual_seed(1)).draw(8, discriminator)
    with torch.no_grad():
        # One image may tip over on a processor that adds up in another order.
        assert int((discriminator(images) > 0).sum()) == pytest.approx(int(claimed[1]), abs=1.01)
        assert (discriminator(generated) < 0).all()
