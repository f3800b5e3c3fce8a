"""What else is worth knowing about a delivered image: how robust, how specific, what the model sees in it.

Measured on the network itself in float32, on the image as it was decoded again, in one batched pass. None of
it changes the picture. Where a network cannot tell (its logits need another size of image, a number is not
finite), the value is left out: no picture fails for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.network import Network
from proxygrad.objectives import Channel, Logit, Neuron, Objective
from proxygrad.spec import ClassProbability, RobustActivation

#: Random shifts of the image, and how far each goes at most in each direction: a part of the side, but at
#: least a pixel.
SHIFTS = 8
SHIFT_PART = 0.04
#: How many classes are named.
TOP_CLASSES = 5


@dataclass(frozen=True)
class Evaluation:
    """Parts of a `Result`; None where it could not be measured."""

    rank: int | None = None
    rank_of: int | None = None
    class_probabilities: tuple[ClassProbability, ...] | None = None
    robust_activation: RobustActivation | None = None


def evaluate(network: Network, objective: Objective, image: Tensor, seed: int) -> Evaluation:
    """Look at ``image`` ``(C, H, W)`` in [0, 1] and at `SHIFTS` shifted copies of it, drawn from ``seed``."""
    images = torch.stack([image, *shifted(image, seed)]).to(network.device, torch.float32)
    logits = next((layer.name for layer in network.units() if layer.kind == "logits"), None)
    wanted = [objective.layers, *([(*objective.layers, logits)] if logits else [])]
    for layers in reversed(wanted):
        try:
            with torch.no_grad():
                read = _read(network, images, tuple(dict.fromkeys(layers)))
                activations = objective(read)  # (1 + SHIFTS,)
        except torch.AcceleratorError:
            raise
        except Exception:
            continue
        rank, rank_of = _rank(objective, read)
        probabilities = _probabilities(read[logits][0], network.classes) if logits in read else None
        return Evaluation(rank, rank_of, probabilities, _robust(activations[1:]))
    return Evaluation()


def shifted(image: Tensor, seed: int) -> list[Tensor]:
    """The image ``(C, H, W)``, `SHIFTS` times moved by whole pixels and mirrored at its border."""
    most = [max(1, math.floor(SHIFT_PART * side)) for side in image.shape[1:]]
    generator = torch.Generator().manual_seed(seed)
    down, right = (torch.randint(0, 2 * m + 1, (SHIFTS,), generator=generator).tolist() for m in most)
    height, width = image.shape[1:]
    padded = functional.pad(image.unsqueeze(0), (most[1], most[1], most[0], most[0]), mode="reflect")[0]
    return [padded[:, y : y + height, x : x + width] for y, x in zip(down, right, strict=True)]


def _read(network: Network, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """All images in one pass; one by one where the network, or memory, takes no more."""
    try:
        return network.read(images, layers)
    except torch.AcceleratorError:
        raise
    except Exception:
        alone = [network.read(image.unsqueeze(0), layers) for image in images]
        return {layer: torch.cat([read[layer] for read in alone]) for layer in layers}


def _rank(objective: Objective, read: dict[str, Tensor]) -> tuple[int | None, int | None]:
    """The unit's place among all units of its layer on the first image, 1 for the most active."""
    if not isinstance(objective, Channel | Neuron | Logit):
        return None, None
    units = _all_units(objective, read[objective.layer][:1])[0]  # (N,)
    return 1 + int((units > units[objective.unit]).sum()), len(units)


def _all_units(objective: Channel | Neuron | Logit, activation: Tensor) -> Tensor:
    """What the objective is for each unit of the layer: ``(B, …)`` → ``(B, N)``."""
    if activation.ndim == 2:
        return activation
    if isinstance(objective, Neuron) and objective.position is not None:
        at = objective.position
        return activation[:, at[0]] if activation.ndim == 3 else activation[:, :, at[0], at[1]]
    return activation.mean(dim=1) if activation.ndim == 3 else activation.mean(dim=(-2, -1))


def _probabilities(logits: Tensor, names: Sequence[str] | None) -> tuple[ClassProbability, ...] | None:
    """The likeliest classes of ``(N,)`` logits, the likeliest first."""
    probabilities = logits.double().softmax(dim=0)
    if len(logits) < 2 or not bool(probabilities.isfinite().all()):
        return None
    top = probabilities.topk(min(TOP_CLASSES, len(logits)))
    return tuple(
        ClassProbability(
            index=index, name=names[index] if names and index < len(names) else None, probability=probability
        )
        for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    )


def _robust(activations: Tensor) -> RobustActivation | None:
    """Mean and standard deviation of ``(SHIFTS,)`` activations."""
    values = activations.double()
    if not bool(values.isfinite().all()):
        return None
    return RobustActivation(mean=float(values.mean()), std=float(values.std(correction=0)))
