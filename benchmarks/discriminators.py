"""Recipes of a discriminator: how its training ends, and what samples look like with it.

    python -m benchmarks.discriminators                # the bundled digits
    python -m benchmarks.discriminators --mnist ../shared

One thread. For each recipe: parameters, mean loss and share told in the last quarter, the outcome, and of 40
chains with weight 0.6 the mean logit, a second classifier's mean confidence in the class, and the distance
to real images (`benchmarks.reproduction.handwriting.distance_to_real`). The first row is of chains without.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.reproduction.chains import chains, each_class
from benchmarks.reproduction.handwriting import Handwriting, digits, distance_to_real, mnist
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.spec.models import OUTPUT
from proxygrad.training.discriminator import DiscriminatorRecipe, train_discriminator

WEIGHT = 0.6
SMALL = DiscriminatorRecipe(width=8, hidden=16)
RECIPES = {
    "digits": [replace(SMALL, learning_rate=rate) for rate in (1e-4, 1e-3, 1e-2)],
    "MNIST": [
        DiscriminatorRecipe(learning_rate=rate, width=width, hidden=hidden, steps=300)
        for width, hidden, rates in ((32, 1024, (1e-4, 1e-3)), (8, 64, (1e-4, 1e-3, 3e-3)))
        for rate in rates
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="has data/mnist; measure MNIST instead")
    shared = parser.parse_args().mnist
    torch.set_num_threads(1)
    data = digits() if shared is None else mnist(shared)
    print(f"{data.name}: width, hidden, rate | parameters | ended with | logit, confidence, distance | s")
    print(f"without: {sampled(data, None, 0.0)}")
    for recipe in RECIPES[data.name]:
        started = time.process_time()
        training = train_discriminator(data.network, data.images, 0, recipe)
        spent_s = time.process_time() - started
        last = training.history[-len(training.history) // 4 :]
        loss = sum(step.loss for step in last) / len(last)
        told = sum(step.real + step.generated for step in last) / len(last) / 2
        parameters = sum(each.numel() for each in training.discriminator.parameters())
        ended = f"{loss:.3f}, {told:.2f}, {training.outcome}"
        print(
            f"{recipe.width}, {recipe.hidden}, {recipe.learning_rate:g} | {parameters} | {ended} | "
            f"{sampled(data, training.discriminator, WEIGHT)} | {spent_s:.0f}",
            flush=True,
        )


def sampled(data: Handwriting, discriminator: Discriminator | None, weight: float) -> str:
    labels = each_class(4)
    samples = chains(data.network, labels, discriminator, weight, seed=5, steps=100)
    with torch.no_grad():
        logits = data.network.activations(samples, OUTPUT)[torch.arange(len(labels)), labels]
    confidence = float(data.judge.confidence(samples, labels).mean())
    return f"{float(logits.mean()):.2f}, {confidence:.3f}, {distance_to_real(data, samples, labels):.2f}"


if __name__ == "__main__":
    main()
