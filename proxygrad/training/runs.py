"""One training run, and what is measured on the network: accuracy, gradients by depth, sparsity, dead units.

Runs of one seed start from the same weights and see the same batches, whatever the method, so methods can be
compared seed by seed. All runs on the CPU in float32 with one thread: a run is repeatable on one machine.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.spec.base import Frozen
from proxygrad.training.architectures import ArchitectureName, build
from proxygrad.training.datasets import Dataset, DatasetName
from proxygrad.training.digits import single_thread
from proxygrad.training.methods import Method

#: Learning rates: half of Liu et al.'s for SGD (0.1), at which the network of ten layers without batch norm
#: diverges from some seeds; and Adam's own.
SGD_RATE, ADAM_RATE = 0.05, 1e-3
#: Images of which gradients by depth are measured: the first ones to train on.
PROBE = 512


class TrainingRecipe(Frozen):
    """What all runs of a comparison have in common.

    ``batch``: images of a step. ``train_images``: of the data set's; None: all. Learning rates fall to 0 by
    half a cosine.
    """

    data: DatasetName
    network: ArchitectureName = "mlp"
    epochs: int = Field(default=20, ge=1, le=1000)
    batch: int = Field(default=64, ge=1, le=10_000)
    sgd_rate: float = Field(default=SGD_RATE, gt=0, le=10)
    adam_rate: float = Field(default=ADAM_RATE, gt=0, le=10)
    train_images: int | None = Field(default=None, ge=1)


class TrainingRun(Frozen):
    """The result of one run. Lists by depth have the layer nearest to the input first.

    ``accuracy``: the share of held-out images that are right, after the last epoch; ``accuracies``: after
    each. ``losses``: the mean of each epoch over its batches. ``gradient_norms``, ``gradient_norms_end``: of
    each layer's weights before and after training, L2, of the method's own gradient. ``sparsity``: the share
    of each rectifier's outputs that are 0 on held-out images. ``dead_units``: of each rectifier, those above
    0 on no image that was trained on, of ``units``. ``diverged``: a loss was not finite, and the run ended
    there; its accuracy counts as 0, and what is measured after training is empty.
    """

    method: str
    seed: int
    accuracy: float
    accuracies: list[float]
    losses: list[float]
    gradient_norms: list[float]
    gradient_norms_end: list[float]
    sparsity: list[float]
    dead_units: list[int]
    units: list[int]
    diverged: bool
    seconds: float


def train(
    dataset: Dataset,
    recipe: TrainingRecipe,
    method: Method,
    seed: int,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> TrainingRun:
    """One run; ``on_epoch`` is called with the number of each epoch that has ended, from 1."""
    with single_thread():
        return _train(dataset, recipe, method, seed, on_epoch)


def _train(
    dataset: Dataset, recipe: TrainingRecipe, method: Method, seed: int, on_epoch: Callable[[int], None]
) -> TrainingRun:
    started = time.monotonic()
    images, labels = dataset.images[: recipe.train_images], dataset.labels[: recipe.train_images]
    shape = (images.shape[1], images.shape[2], images.shape[3])
    network = build(recipe.network, shape, dataset.classes, method.rectifier, seed)
    rate = recipe.sgd_rate if method.optimizer == "sgd" else recipe.adam_rate
    optimizer = method.make_optimizer(network, rate)
    batches = math.ceil(len(labels) / recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * batches)
    generator = torch.Generator().manual_seed(seed)
    probe = images[:PROBE], labels[:PROBE]
    before = gradient_norms(network, *probe, method, 0.0)
    losses, accuracies, diverged = list[float](), list[float](), False
    for epoch in range(recipe.epochs):
        total = 0.0
        for number, chosen in enumerate(torch.randperm(len(labels), generator=generator).split(recipe.batch)):
            with method.block((epoch * batches + number) / (recipe.epochs * batches)):
                logits = network(images[chosen])
            loss = functional.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        diverged = not math.isfinite(total)
        if diverged:
            break
        losses.append(total / len(labels))
        accuracies.append(accuracy(network, dataset.held_out_images, dataset.held_out_labels))
        on_epoch(epoch + 1)
    sparse = [] if diverged else activity(network, dataset.held_out_images)[0]
    alive = [] if diverged else activity(network, images)[1]
    return TrainingRun(
        method=method.name,
        seed=seed,
        accuracy=0.0 if diverged else accuracies[-1],
        accuracies=accuracies,
        losses=losses,
        gradient_norms=before,
        gradient_norms_end=[] if diverged else gradient_norms(network, *probe, method, 1.0),
        sparsity=sparse,
        dead_units=[int((~each).sum()) for each in alive],
        units=[len(each) for each in alive],
        diverged=diverged,
        seconds=round(time.monotonic() - started, 2),
    )


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images whose largest logit is that of their label, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        right = sum(
            int((network(part).argmax(dim=1) == of_part).sum())
            for part, of_part in zip(images.split(1000), labels.split(1000), strict=True)
        )
    network.train()
    return right / len(labels)


def gradient_norms(
    network: nn.Module, images: Tensor, labels: Tensor, method: Method, done: float
) -> list[float]:
    """The L2 norm of the method's gradient by each layer's weights; the network stays as it is."""
    copied = copy.deepcopy(network)
    copied.zero_grad()
    with method.block(done):
        logits = copied(images)
    torch.autograd.backward(functional.cross_entropy(logits, labels))
    weights = [weight for weight in copied.parameters() if weight.ndim > 1]
    return [float(weight.grad.norm()) for weight in weights if weight.grad is not None]


def activity(network: nn.Module, images: Tensor) -> tuple[list[float], list[Tensor]]:
    """Of each rectifier, in order: the share of its outputs that are 0; which units are above 0 on any image.

    A unit is a channel, at any position.
    """
    zeros, counts, alive = dict[int, int](), dict[int, int](), dict[int, Tensor]()

    def note(index: int, output: Tensor) -> None:
        zeros[index] = zeros.get(index, 0) + int((output == 0).sum())
        counts[index] = counts.get(index, 0) + output.numel()
        active = (output > 0).transpose(0, 1).flatten(1).any(dim=1)
        alive[index] = active | alive[index] if index in alive else active

    rectifiers = [each for each in network.modules() if isinstance(each, nn.ReLU | nn.LeakyReLU)]
    hooks = [
        each.register_forward_hook(lambda _, __, output, index=index: note(index, output))
        for index, each in enumerate(rectifiers)
    ]
    network.eval()
    try:
        with torch.no_grad():
            for part in images.split(1000):
                network(part)
    finally:
        network.train()
        for hook in hooks:
            hook.remove()
    order = range(len(rectifiers))
    return [zeros[index] / counts[index] for index in order], [alive[index] for index in order]
