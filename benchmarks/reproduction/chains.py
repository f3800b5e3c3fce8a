"""Langevin chains for the stages of LDAM: a few for each class, as `proxygrad.sample` runs them."""

from __future__ import annotations

import torch
from torch import Tensor

from proxygrad import Network, SampleSet, sample
from proxygrad.langevin.discriminator import Discriminator

SLOPE = 0.05
#: Of variant `authors`. Its own default of 10/256 has not burned in after 100 steps.
STEP_SIZE = 0.2


def chains(
    network: Network,
    labels: Tensor,
    discriminator: Discriminator | None,
    weight: float,
    *,
    seed: int,
    steps: int,
) -> Tensor:
    """The last state of a chain of the authors' dynamics toward the logit of each of ``labels`` ``(N,)``.

    ``labels``: as `each_class` makes them. Returns ``(N, C, H, W)``. Starts are uniform noise.
    """
    classes, counts = labels.unique_consecutive(return_counts=True)
    network.discriminator = discriminator
    found = sample(
        network,
        [f"output:{label}" for label in classes.tolist()],
        chains=int(counts[0]),
        samples=1,
        variant="authors",
        burn_in=steps - 1,
        thinning=1,
        step_size=STEP_SIZE,
        slope=SLOPE,
        discriminator_weight=0.0 if discriminator is None else weight,
        seed=seed,
        progress=False,
    )
    sets = [found] if isinstance(found, SampleSet) else found
    return torch.cat([each.images.flatten(0, 1) for each in sets])


def each_class(count: int, classes: int = 10) -> Tensor:
    """``count`` times each class, in order: ``(count · classes,)``."""
    return torch.arange(classes).repeat_interleave(count)
