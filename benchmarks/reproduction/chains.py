"""Langevin chains for the stages of LDAM: a few for each class, all at once."""

from __future__ import annotations

import torch
from torch import Tensor

from proxygrad import Network, surrogate
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.optim.gradient_activations import normalize
from proxygrad.spec.models import OUTPUT

SLOPE = 0.05
#: Root mean square change of a pixel by the first step, and the deviation of the noise beside it. Both fall
#: to a tenth, so that a chain burns in and then moves little.
STEP_SIZE, NOISE = 0.15, 0.03


def chains(
    network: Network,
    labels: Tensor,
    discriminator: Discriminator | None,
    weight: float,
    *,
    seed: int,
    steps: int,
    noise: float = NOISE,
) -> Tensor:
    """The last state of a Langevin chain toward the logit of each of ``labels`` ``(N,)``: ``(N, C, H, W)``.

    As the authors mix gradients: that of the logit with 1 - ``weight``, that of log D with ``weight``, each
    of root mean square 1 for each image. Starts are uniform noise.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(labels), *network.input_shape, generator=generator)
    rows = torch.arange(len(labels))
    for step in range(steps):
        images.requires_grad_()
        with surrogate(slope=SLOPE):
            logits = network.activations(images, OUTPUT)[rows, labels]
            (gradient,) = torch.autograd.grad(logits.sum(), images)
            direction = (1 - weight) * normalize(gradient)
            if discriminator is not None and weight:
                (gradient,) = torch.autograd.grad(discriminator.log_real(images).sum(), images)
                direction = direction + weight * normalize(gradient)
        left = max(0.1, 1 - step / steps)
        random = torch.randn(images.shape, generator=generator)
        images = (images.detach() + left * (STEP_SIZE * direction + noise * random)).clamp(0, 1)
    return images


def each_class(count: int, classes: int = 10) -> Tensor:
    """``count`` times each class, in order: ``(count · classes,)``."""
    return torch.arange(classes).repeat_interleave(count)
