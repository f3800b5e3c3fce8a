"""Training of the bundled network ``digits``, so that what its units respond to can be seen.

A network trained plainly on these images is as accurate, but activation maximization of it draws noise. Two
remedies, both from the literature on perceptually aligned gradients, are mixed here (after RATIO, Augustin et
al. 2020, arXiv 2003.09461, Section 4):

- *attacks*: training images moved within an L2 ball to where the loss is worst (Madry et al. 2018, arXiv
  1706.06083);
- *phantoms*: images made from gray by ascending a random logit, or a random unit of ``layer3``; the network
  learns that they are no digit and that the unit should not have answered. So a unit keeps a strong answer
  only to what real digits hold.

Everything random comes from the seed, everything runs on the CPU in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.errors import ModelError
from proxygrad.models.digits import CLASSES, INPUT_SHAPE, DigitsNet, digits, normalize
from proxygrad.optim.update_rules import normalized_ascent, rate

HELD_OUT_EVERY = 5  # of each class every fifth image in file order is held out: 355 of 1797


@dataclass(frozen=True)
class Recipe:
    """The chosen numbers. Found by trying: see "How the recipe was found" in ``models/digits.md``."""

    epochs: int = 25
    batch: int = 96
    learning_rate: float = 0.01  # peak of a one-cycle schedule, AdamW
    weight_decay: float = 0.02
    rotation_deg: float = 10.0
    shift_px: float = 2.0
    zoom: float = 0.1
    radius: float = 2.5  # of the attacks, L2 over the pixels in [0, 1]; drawn per image from 0 to this
    attack_steps: int = 3
    phantoms: int = 32  # per batch and kind: of logits, of units of layer3
    phantom_steps: int = 5
    phantom_step_size: float = 0.15  # root mean square change per pixel of the first step
    phantom_weight: float = 0.5
    unit_weight: float = 0.1


@dataclass(frozen=True)
class Split:
    """Images ``(N, 1, 32, 32)`` in [0, 1], ink = 1, and labels ``(N,)``, for training and held out."""

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


@dataclass(frozen=True)
class Trained:
    """A trained network and the share of held-out images that it classifies correctly."""

    network: DigitsNet
    accuracy: float


def load_split() -> Split:
    """scikit-learn's handwritten digits, enlarged from 8×8 to 32×32 bilinearly; no randomness.

    Raises `ModelError` where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModelError(
            "the training images come with scikit-learn, which is not installed: "
            "pip install --editable '.[training]' in a checkout"
        ) from error
    data = load_digits()
    labels = torch.tensor(data.target)
    small = (
        torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    )  # counts of 0 to 16 ink dots per cell
    images = functional.interpolate(small, INPUT_SHAPE[1:], mode="bilinear", align_corners=False)
    held_out = held_out_mask(labels)
    return Split(images[~held_out], labels[~held_out], images[held_out], labels[held_out])


def held_out_mask(labels: Tensor) -> Tensor:
    """True for every fifth image of each class, in order. ``(N,)`` → ``(N,)``."""
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(CLASSES)):
        mask[(labels == label).nonzero().flatten()[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]] = True
    return mask


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose largest logit is that of their label."""
    with torch.no_grad():
        return float((network(normalize(images)).argmax(dim=1) == labels).float().mean())


def train(split: Split, seed: int, recipe: Recipe, progress: Callable[[int, float], None]) -> Trained:
    """Train from scratch; ``progress(epoch, loss)`` is called after each epoch, from 1, with its mean loss.

    Leaves torch's global random state and number of threads as they were.
    """
    with single_thread():
        return _train(split, seed, recipe, progress)


def _train(split: Split, seed: int, recipe: Recipe, progress: Callable[[int, float], None]) -> Trained:
    generator = torch.Generator().manual_seed(seed)
    network = _fresh(seed)
    batches = len(split.labels) // recipe.batch
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * batches, pct_start=0.2
    )
    for epoch in range(1, recipe.epochs + 1):
        # Attacks grow over the first third: at full strength from the start, little is learned for long.
        radius = recipe.radius * min(1.0, epoch / (0.3 * recipe.epochs))
        order = torch.randperm(len(split.labels), generator=generator)[: batches * recipe.batch]
        total = 0.0
        for chosen in order.view(batches, recipe.batch).unbind():
            loss = batch_loss(network, split.images[chosen], split.labels[chosen], radius, recipe, generator)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        progress(epoch, total / batches)
    network.eval()
    return Trained(network, accuracy(network, split.held_out_images, split.held_out_labels))


def batch_loss(
    network: DigitsNet,
    images: Tensor,
    labels: Tensor,
    radius: float,
    recipe: Recipe,
    generator: torch.Generator,
) -> Tensor:
    """The loss of one batch: attacked images by their labels, phantoms as no digit, their units' answers."""
    radii = radius * torch.rand(len(images), generator=generator)
    network.eval()  # attacks and phantoms see the network as it will be used
    attacked = attack(
        network, augment(images, recipe, generator), labels, radii, recipe.attack_steps, generator
    )
    targets = Targets.draw(recipe.phantoms, generator)
    phantoms = conjure(network, targets, recipe, generator)
    network.train()
    features = network.features(normalize(torch.cat([attacked, phantoms])))
    logits = network.classify(features)
    real, unreal = logits[: len(images)], logits[len(images) :]
    named = functional.one_hot(labels, len(CLASSES)).float()
    loss = _binary_loss(real, named) + recipe.phantom_weight * _binary_loss(unreal, torch.zeros_like(unreal))
    answers = targets.units(features[len(images) :])
    return loss + recipe.unit_weight * answers.mean()


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Each image turned, zoomed and shifted a little, at random; outside is no ink. Shape kept."""
    count = len(images)
    turn, zoom, *shift = torch.rand(4, count, generator=generator) * 2 - 1
    angle, size = turn * math.radians(recipe.rotation_deg), 1 + zoom * recipe.zoom
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = angle.cos() * size
    maps[:, 1, 0] = angle.sin() * size
    maps[:, 0, 1] = -maps[:, 1, 0]
    maps[:, :, 2] = (
        torch.stack(shift, dim=1) * recipe.shift_px * 2 / INPUT_SHAPE[2]
    )  # the image spans [-1, 1]
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def attack(
    network: nn.Module, images: Tensor, labels: Tensor, radii: Tensor, steps: int, generator: torch.Generator
) -> Tensor:
    """Each image moved to where cross-entropy is worst, by at most ``radii`` ``(N,)`` in L2; shape kept.

    Projected gradient descent: from a random start in the ball, each step 2 radii / ``steps`` long;
    pixels stay in [0, 1].
    """
    limit = radii.view(-1, 1, 1, 1)
    start = torch.randn(images.shape, generator=generator)
    moved = start / _length(start) * limit * torch.rand(limit.shape, generator=generator)
    for _ in range(steps):
        moved.requires_grad_()
        loss = functional.cross_entropy(
            network(normalize((images + moved).clamp(0, 1))), labels, reduction="sum"
        )
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + gradient / _length(gradient) * limit * (2 / steps)
        moved = moved * (limit / _length(moved)).clamp(max=1)
        moved = (images + moved).clamp(0, 1) - images
    return images + moved.detach()


@dataclass(frozen=True)
class Targets:
    """What phantoms ascend: the first N a logit each, the next N a unit of ``layer3`` each."""

    label: Tensor  # (N,) whose logit
    channel: Tensor  # (N,)
    cell: Tensor  # (N,) index into the channel's flattened map
    whole: Tensor  # (N,) True: the channel's mean instead of the cell

    @classmethod
    def draw(cls, count: int, generator: torch.Generator) -> Targets:
        """``count`` logits and ``count`` units, all equally likely."""
        tops = (len(CLASSES), 64, 16, 2)  # layer3: 64 channels of 4×4 cells
        drawn = [torch.randint(0, top, (count,), generator=generator) for top in tops]
        return cls(drawn[0], drawn[1], drawn[2], drawn[3] == 1)

    def logits(self, logits: Tensor) -> Tensor:
        """The ascended logits: ``(2N, 10)`` → ``(N,)``."""
        count = len(self.label)
        return logits[torch.arange(count), self.label]

    def units(self, features: Tensor) -> Tensor:
        """The activations of the ascended units: ``(2N, 64, 4, 4)`` → ``(N,)``."""
        count = len(self.channel)
        rows = torch.arange(count)
        maps = features[count:].flatten(2)[rows, self.channel]  # (N, 16)
        return torch.where(self.whole, maps.mean(dim=1), maps[rows, self.cell])


def conjure(network: DigitsNet, targets: Targets, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """A phantom for each target, by a few steps of normalized ascent from near gray: ``(2N, 1, 32, 32)``."""
    images = phantom_starts(2 * len(targets.label), generator)
    for step in range(recipe.phantom_steps):
        images.requires_grad_()
        features = network.features(normalize(images))
        total = targets.logits(network.classify(features)).sum() + targets.units(features).sum()
        (gradient,) = torch.autograd.grad(total, images)
        length = rate(recipe.phantom_step_size, step, recipe.phantom_steps)
        images = normalized_ascent(images.detach(), gradient, torch.full((len(images),), length))
    return images


def phantom_starts(count: int, generator: torch.Generator) -> Tensor:
    """Near gray, at levels from 0.3 to 0.7, with fine noise; half of them with clouds of up to 0.5.

    They differ so that a unit that is dead on one start is met alive on another.
    """
    level = 0.3 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    noise = 0.05 * (torch.rand(count, *INPUT_SHAPE, generator=generator) * 2 - 1)
    small = torch.randn(count, 1, 8, 8, generator=generator)
    clouds = functional.interpolate(small, INPUT_SHAPE[1:], mode="bilinear", align_corners=False)
    strength = (torch.rand(count, 1, 1, 1, generator=generator) - 0.5).clamp_min(0)
    return (level + noise + strength * clouds).clamp(0, 1)


def save(network: nn.Module, path: Path) -> None:
    """Write the weights as safetensors. Raises `ModelError` naming the path when it cannot be written."""
    from safetensors.torch import save_file

    try:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    except Exception as error:  # safetensors has one error of its own for whatever the system refuses
        raise ModelError(f"weights cannot be written to {path}: {error}") from error


@contextmanager
def single_thread() -> Iterator[None]:
    """Context manager: torch computes in one thread, so that sums are those of any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fresh(seed: int) -> DigitsNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers draw their first weights from the global generator
        return digits(weights=False)


def _binary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1).mean()


def _length(images: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return length.clamp_min(1e-12)  # (N, 1, 1, 1); never divides by zero
