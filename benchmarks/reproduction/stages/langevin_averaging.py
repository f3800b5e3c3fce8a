"""LDAM: a network and the exponential average of its weights, sampled side by side during training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.reproduction.chains import chains, each_class
from benchmarks.reproduction.handwriting import (
    CLASSES,
    Handwriting,
    accuracy,
    classifier,
    distance_to_real,
    mnist,
    reset,
)
from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Table
from proxygrad import Network, grid
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.spec.models import OUTPUT
from proxygrad.training.discriminator import DiscriminatorRecipe, train_discriminator

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: A constant learning rate at which the weights keep wandering, so that an average has something to average.
LEARNING_RATE, MOMENTUM, BATCH = 0.02, 0.9, 16
DECAY = 0.99
#: A smaller discriminator than the authors', at ten times their learning rate.
RECIPE = DiscriminatorRecipe(steps=200, width=8, hidden=64, learning_rate=1e-3)
WEIGHT = 0.5
#: Steps at which both are sampled; the last two are close to each other.
MOMENTS = (150, 450, 900, 920)

NOTE = f"""
A network of two convolutions, trained on one half of MNIST's 10,000 test images by SGD with batches of
{BATCH}, a constant learning rate of {LEARNING_RATE:g} and momentum {MOMENTUM:g}. The weights of its twin are
the exponential average of the network's, with decay {DECAY:g} at each step. Both are sampled from the same
starts with the same noise, without a discriminator and with one at weight {WEIGHT:g}, which was trained
beside another network of the same kind. The judge, the distance and the chains are those of the section
"A discriminator between activation and likeness". Three seeds; rows of the table are means.
"""


@dataclass(frozen=True)
class Moment:
    """Samples of one network at one step of its training: ``samples`` ``(N, 1, 28, 28)``, as many a class."""

    seed: int
    step: int
    averaged: bool
    weight: float
    samples: Tensor
    accuracy: float
    activation: float
    confidence: float
    distance: float


@dataclass(frozen=True)
class LangevinAveraging:
    """Chains of both networks at some steps of the training."""

    name: str = "langevin_averaging"
    title: str = "A network and the average of its weights"
    paper: Paper = "LDAM"
    needs_shared: bool = True

    def run(self, context: Context) -> Report:
        """Three seeds; quick: one, two moments, and few chains."""
        assert context.shared is not None
        context.progress(0, 100, "judge")
        data = mnist(context.shared)
        context.progress(5, 100, "discriminator")
        recipe = replace(RECIPE, steps=60) if context.quick else RECIPE
        discriminator = train_discriminator(data.network, data.images, 0, recipe).discriminator
        seeds, steps = (1, MOMENTS[:1]) if context.quick else (3, MOMENTS)
        count, chain_steps = (3, 30) if context.quick else (4, 60)
        found = list[Moment]()
        for seed in range(seeds):
            for step, network, twin in training(data, seed + 10, steps):
                context.progress(
                    20 + 80 * len(found) // (4 * seeds * len(steps)), 100, f"seed {seed}, step {step}"
                )
                for averaged, module in ((False, network), (True, twin)):
                    sampler = Sampler(data, discriminator, count, chain_steps)
                    found += [
                        sampler.moment(module, seed, step, averaged, weight) for weight in (0.0, WEIGHT)
                    ]
        claims = [confidence_claim(found)]
        if not context.quick:
            claims = [likeness_claim(found), *claims, change_claim(found)]  # close, or of later moments
        figure = Figure(
            "averaging",
            "MNIST: one chain of each class, by step, of the network above and of the average of its weights "
            f"below, with the discriminator at weight {WEIGHT:g}",
            partial(draw_samples, found, count),
        )
        return Report(tuple(claims), (table(found),), (figure,), NOTE)


def training(
    data: Handwriting, seed: int, moments: tuple[int, ...]
) -> Iterator[tuple[int, nn.Module, nn.Module]]:
    """The network and its averaged twin at each of these steps."""
    network = classifier()
    reset(network, seed)
    twin = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM)
    generator = torch.Generator().manual_seed(seed)
    for step in range(1, moments[-1] + 1):
        chosen = torch.randint(len(data.labels), (BATCH,), generator=generator)
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(data.images[chosen]), data.labels[chosen]))
        optimizer.step()
        twin.update_parameters(network)
        if step in moments:
            yield step, network, twin.module


@dataclass(frozen=True)
class Sampler:
    """``count`` chains a class of ``steps`` steps."""

    data: Handwriting
    discriminator: Discriminator
    count: int
    steps: int

    def moment(self, module: nn.Module, seed: int, step: int, averaged: bool, weight: float) -> Moment:
        """Samples of ``module`` as it is now."""
        network = Network(module, (1, 28, 28), 0, 1)
        labels = each_class(self.count)
        samples = chains(network, labels, self.discriminator, weight, seed=seed, steps=self.steps)
        with torch.no_grad():
            logits = network.activations(samples, OUTPUT)[torch.arange(len(labels)), labels]
        return Moment(
            seed,
            step,
            averaged,
            weight,
            samples,
            accuracy(network.module, self.data.others, self.data.other_labels),
            float(logits.mean()),
            float(self.data.judge.confidence(samples, labels).mean()),
            distance_to_real(self.data, samples, labels),
        )


def pairs(found: list[Moment]) -> list[tuple[Moment, Moment]]:
    """Each moment of a network with that of its twin."""
    twins = {(each.seed, each.step, each.weight): each for each in found if each.averaged}
    return [(each, twins[each.seed, each.step, each.weight]) for each in found if not each.averaged]


def likeness_claim(found: list[Moment]) -> Claim:
    """Whether samples of the average are closer to real images."""
    both = pairs(found)
    network = sum(one.distance for one, _ in both) / len(both)
    average = sum(two.distance for _, two in both) / len(both)
    closer = sum(two.distance < one.distance for one, two in both)
    return Claim(
        "LDAM",
        "During training, samples of the network with averaged weights are closer to real images than those "
        "of the network itself, by 2 % or more in the mean and in two thirds of the pairs.",
        f"distance {network:.3f} → {average:.3f}, closer in {closer} of {len(both)} pairs",
        "holds" if average <= 0.98 * network and 3 * closer >= 2 * len(both) else "does not hold",
    )


def confidence_claim(found: list[Moment]) -> Claim:
    """Whether the judge is surer of them."""
    both = pairs(found)
    network = sum(one.confidence for one, _ in both) / len(both)
    average = sum(two.confidence for _, two in both) / len(both)
    return Claim(
        "LDAM",
        "During training, a second classifier is surer of samples of the network with averaged weights, by "
        ".01 or more in the mean.",
        f"confidence {network:.3f} → {average:.3f}",
        "holds" if average >= network + 0.01 else "does not hold",
    )


def change_claim(found: list[Moment]) -> Claim:
    """Whether they change less from one moment to the next."""
    changes = {averaged: change(found, averaged) for averaged in (False, True)}
    return Claim(
        "LDAM",
        f"Samples of the network with averaged weights change less within {MOMENTS[-1] - MOMENTS[-2]} steps "
        "of the training, by a fifth or more.",
        f"root mean square change of a pixel {changes[False]:.3f} → {changes[True]:.3f}",
        "holds" if changes[True] <= 0.8 * changes[False] else "does not hold",
    )


def change(found: list[Moment], averaged: bool) -> float:
    """Between the last two moments, over all seeds and weights."""
    before, after = (
        torch.cat([each.samples for each in found if each.averaged == averaged and each.step == step])
        for step in MOMENTS[-2:]
    )
    return float((after - before).square().mean().sqrt())


def table(found: list[Moment]) -> Table:
    """A row for each step, network and weight; the mean over seeds."""
    keys = list(dict.fromkeys((each.step, each.weight, each.averaged) for each in found))
    rows = []
    for step, weight, averaged in sorted(keys):
        own = [each for each in found if (each.step, each.weight, each.averaged) == (step, weight, averaged)]
        numbers = [
            f"{sum(getattr(each, part) for each in own) / len(own):.3f}"
            for part in ("accuracy", "activation", "confidence", "distance")
        ]
        rows.append((str(step), f"{weight:g}", "average" if averaged else "network", *numbers))
    columns = ("step", "weight of D", "of", "accuracy", "logit", "judge's confidence", "distance")
    return Table("Samples during training", columns, tuple(rows))


def draw_samples(found: list[Moment], count: int, canvas: Canvas) -> None:
    """Of the first seed, with discriminator: rows of network and average in turn."""
    rows = sorted(
        (each for each in found if each.seed == 0 and each.weight),
        key=lambda each: (each.step, each.averaged),
    )
    images = [image for row in rows for image in row.samples[::count]]
    canvas.set_size_inches(5, 0.5 * len(rows) + 0.3)
    axes = canvas.subplots()
    axes.imshow(grid(images, columns=CLASSES))
    names = [f"{each.step}, {'average' if each.averaged else 'network'}" for each in rows]
    axes.set_yticks([15 + 30 * number for number in range(len(rows))], names)
    axes.set_xticks([])


STAGE = LangevinAveraging()
