"""Training of a discriminator, on real images against those that Langevin chains of the model make.

After Jiang, Chan, Zhang and Canny (2018, arXiv 1812.04604): each batch is half real and half generated, and
the discriminator learns to tell them apart (Goodfellow et al. 2014, arXiv 1406.2661) while the chains, which
ascend the units of the model, also ascend its log-probability of "real". The chains are kept between batches
and some start anew each time, as in the replay buffer of Du and Mordatch (2019, arXiv 1903.08689, Section
3.2), so that the discriminator sees images at every age of a chain.

Everything random comes from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.backward.surrogate import surrogate
from proxygrad.errors import InvalidRequest, ModelError
from proxygrad.langevin.discriminator import Discriminator, DiscriminatorArchitecture
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Channel, Logit, Neuron, UnitObjective
from proxygrad.optim.gradient_activations import normalize
from proxygrad.spec.models import OUTPUT, LayerKind

#: What became of a training: `outcome`.
Outcome = Literal["balanced", "won", "learned nothing"]

_OBJECTIVES: dict[LayerKind, type[UnitObjective]] = {
    "feature_map": Channel,
    "tokens": Channel,
    "vector": Neuron,
    "logits": Logit,
}


@dataclass(frozen=True)
class DiscriminatorRecipe:
    """The chosen numbers of a training.

    ``batch``: images of a step, half of them real; ``learning_rate``: of AdaGrad, the authors' optimizer;
    ``width``, ``hidden``: of the network (`DiscriminatorArchitecture.suited_to`). ``weight``: of the
    discriminator's gradient against the model's, each of root mean square 1 per image (the authors': 0.5).
    ``chains``: how many are kept; ``chain_steps``: what each moves when its turn comes; ``restarts``: the
    share of those that start anew before. ``step_size``: root mean square change of a pixel by a step of a
    chain; ``noise``: standard deviation of what is added to each pixel. ``slope``: of the model's rectifiers
    (`proxygrad.surrogate`).
    """

    steps: int = 500
    batch: int = 64
    learning_rate: float = 1e-4
    width: int = 32
    hidden: int = 1024
    weight: float = 0.5
    chains: int = 256
    chain_steps: int = 5
    restarts: float = 0.1
    step_size: float = 0.1
    noise: float = 0.02
    slope: float = 0.05

    def __post_init__(self) -> None:
        if self.batch < 2 or self.batch % 2 or self.chains < self.batch // 2:
            raise InvalidRequest(
                f"batch {self.batch} with {self.chains} chains; valid: an even number, of which half is no "
                "more than the chains"
            )
        for name, most in (("learning_rate", 1.0), ("weight", 1.0), ("restarts", 1.0), ("slope", 1.0)):
            _check_range(name, getattr(self, name), most)
        for name in ("step_size", "noise"):
            _check_range(name, getattr(self, name), 10.0)


def _check_range(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise InvalidRequest(f"{name} {value:g}; valid: from 0 to {most:g}")


@dataclass(frozen=True)
class TrainingStep:
    """One step of the training, measured before its update.

    ``loss``: binary cross-entropy, ln 2 for a coin; ``real``, ``generated``: the shares of either half that
    were told; ``activation``: mean of the units that the chains of the batch ascend.
    """

    loss: float
    real: float
    generated: float
    activation: float


@dataclass(frozen=True)
class DiscriminatorTraining:
    """A trained discriminator and each step of its training."""

    discriminator: Discriminator
    history: tuple[TrainingStep, ...]

    @property
    def outcome(self) -> Outcome:
        """What became of it, by the last quarter of the steps."""
        return outcome(self.history)


def outcome(history: tuple[TrainingStep, ...]) -> Outcome:
    """``won``: 99 % are told with a loss below 0.05, so log D is flat at real images and says little of what
    is wrong with others. ``learned nothing``: the loss is no lower than a coin's, or 55 % are told at most.
    Else ``balanced``. By the means of the last quarter.
    """
    last = history[-max(1, len(history) // 4) :]
    loss = sum(step.loss for step in last) / len(last)
    told = sum((step.real + step.generated) / 2 for step in last) / len(last)
    if told >= 0.99 and loss < 0.05:
        return "won"
    return "learned nothing" if told <= 0.55 or loss >= 0.69 else "balanced"


class Chains:
    """Short Langevin chains toward random units of a layer, kept between batches.

    A step moves an image by ``step_size`` along the mixed gradients of unit and log D, adds noise, and keeps
    the pixels in [0, 1].
    """

    def __init__(
        self, network: Network, layer: str, recipe: DiscriminatorRecipe, generator: torch.Generator
    ) -> None:
        info = network.layer(layer)
        self._objective = _OBJECTIVES[info.kind](info.name, 0).at({info.name: info.shape})
        self._network, self._layer, self._units = network, info.name, info.units
        self._recipe, self._generator = recipe, generator
        self._images = self._starts(recipe.chains)
        self._targets = torch.randint(info.units, (recipe.chains,), generator=generator)

    def draw(self, count: int, discriminator: Discriminator) -> tuple[Tensor, float]:
        """``count`` chains, a few steps further: images ``(count, C, H, W)``, mean activation before the last
        step."""
        recipe = self._recipe
        turn = torch.randperm(recipe.chains, generator=self._generator)[:count]
        anew = turn[torch.rand(count, generator=self._generator) < recipe.restarts]
        self._images[anew] = self._starts(len(anew))
        self._targets[anew] = torch.randint(self._units, (len(anew),), generator=self._generator)
        images, targets = self._images[turn], self._targets[turn]
        reached = 0.0
        for _ in range(recipe.chain_steps):
            images, reached = self._advanced(images, targets, discriminator)
        self._images[turn] = images
        return images, reached

    def _advanced(
        self, images: Tensor, targets: Tensor, discriminator: Discriminator
    ) -> tuple[Tensor, float]:
        recipe = self._recipe
        seen = images.detach().to(self._network.device).requires_grad_()
        with surrogate(slope=recipe.slope):
            activations = self._network.read(seen, [self._layer])
            values = self._objective.per_unit(activations)[torch.arange(len(images)), targets]
            (toward_unit,) = torch.autograd.grad(values.sum(), seen)
            (toward_real,) = torch.autograd.grad(discriminator.log_real(seen).sum(), seen)
        step = (1 - recipe.weight) * normalize(toward_unit) + recipe.weight * normalize(toward_real)
        noise = torch.randn(images.shape, generator=self._generator)
        moved = images + recipe.step_size * step.cpu() + recipe.noise * noise
        return moved.clamp(0, 1), values.mean().item()

    def _starts(self, count: int) -> Tensor:
        """Uniform noise, of any contrast around any gray: ``(count, C, H, W)``."""
        shape = (count, *self._network.input_shape)
        level, contrast = torch.rand(2, count, 1, 1, 1, generator=self._generator)
        noise = torch.rand(shape, generator=self._generator) - 0.5
        starts: Tensor = (level + contrast * noise).clamp(0, 1)
        return starts


def train_discriminator(
    network: Network,
    images: Tensor,
    seed: int,
    recipe: DiscriminatorRecipe,
    *,
    layer: str = OUTPUT,
    progress: Callable[[int, TrainingStep], None] = lambda step, measured: None,
) -> DiscriminatorTraining:
    """Train one for ``network`` on real ``images`` ``(N, C, H, W)``: uint8, or floating-point in [0, 1].

    ``layer``: whose units the chains ascend, each chain a random one. ``progress(step, measured)`` is called
    after each step, from 1. Torch's global random state is left as it was.

    Raises `InvalidRequest` for images of another shape than the network's input or out of range, and
    `ModelError` when the loss is no finite number.
    """
    _check(network, images)
    generator = torch.Generator().manual_seed(seed)
    architecture = DiscriminatorArchitecture.suited_to(network.input_shape, recipe.width, recipe.hidden)
    devices = [network.device] if network.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)  # for the first weights and for dropout
        discriminator = Discriminator(architecture).to(network.device)
        optimizer = torch.optim.Adagrad(discriminator.parameters(), lr=recipe.learning_rate)
        chains = Chains(network, layer, recipe, generator)
        history = []
        for step in range(1, recipe.steps + 1):
            discriminator.eval()
            generated, activation = chains.draw(recipe.batch // 2, discriminator)
            chosen = torch.randint(len(images), (recipe.batch // 2,), generator=generator)
            discriminator.train()
            logits = discriminator(torch.cat([_pixels(images[chosen]), generated]).to(network.device))
            measured = _update(discriminator, optimizer, logits, activation)
            if not math.isfinite(measured.loss):
                raise ModelError(
                    f"step {step} of {recipe.steps}: the loss is {measured.loss}, since the gradient of "
                    f"layer {layer!r} or of the discriminator left finite numbers"
                )
            history.append(measured)
            progress(step, measured)
    discriminator.trained_with = {
        "model": network.name,
        "model_digest": network.info.digest,
        "layer": layer,
        "images": len(images),
        "seed": seed,
        **asdict(recipe),
    }
    return DiscriminatorTraining(discriminator.eval(), tuple(history))


def _update(
    discriminator: Discriminator, optimizer: torch.optim.Optimizer, logits: Tensor, activation: float
) -> TrainingStep:
    """One step on a batch whose first half is real."""
    half = len(logits) // 2
    labels = torch.cat([torch.ones(half), torch.zeros(half)]).to(logits)
    loss = functional.binary_cross_entropy_with_logits(logits, labels)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    told = ((logits > 0) == (labels > 0)).float()
    return TrainingStep(loss.item(), told[:half].mean().item(), told[half:].mean().item(), activation)


def _check(network: Network, images: Tensor) -> None:
    if images.ndim != 4 or tuple(images.shape[1:]) != network.input_shape or not len(images):
        raise InvalidRequest(
            f"images of shape {tuple(images.shape)}; model {network.name!r} needs "
            f"(N, {', '.join(map(str, network.input_shape))}), N at least 1"
        )
    if images.is_floating_point() and not 0 <= float(images.min()) <= float(images.max()) <= 1:
        low, high = float(images.min()), float(images.max())
        raise InvalidRequest(f"images have values from {low:g} to {high:g}; valid: 0 to 1, or uint8")


def _pixels(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()
