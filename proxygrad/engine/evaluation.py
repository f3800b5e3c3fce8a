"""Evaluation of a finished image: its robustness, the rank of its unit, and the classes the model sees in it.

Read in float32 from the image as it was decoded again: the image in one pass to the logits, its shifted
copies as a batch that runs no further than the objective's layers. Both use the variant that steps use in
float32 (`Network.prepared`: batch norms folded, convolutions channels-last), whose values differ from the
network's own by at most `proxygrad.networks.variants.ROUNDING` of their root mean square, and by less than
1e-5 on the networks of tests/proxygrad/networks/test_variants.py. The achieved activation is not read here:
it is the network's own (`proxygrad.engine.rendering.measure`).

None of it changes the picture. A value that cannot be read (the logits need another size of image, a number
is not finite) is left out: no picture fails for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.networks.batchnorm_folding import FoldMismatch
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.spec import ClassProbability, RobustActivation

#: Random shifts of the image, and how far each goes at most in each direction: a part of the side, but at
#: least a pixel.
SHIFTS = 8
SHIFT_PART = 0.04
#: Pixels of one pass, four images of 224 px: beyond that the CPU loses more to fetching memory for the maps
#: of the first layers than a larger batch gains (docs/measurements/speed.md).
PASS_PIXELS = 4 * 224 * 224
#: Functions of torch that return probabilities.
PROBABILITIES = frozenset({"softmax", "_softmax", "sigmoid", "special_expit", "hardsigmoid"})
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
    """Evaluate ``image`` ``(C, H, W)`` in [0, 1] and `SHIFTS` shifted copies of it, drawn from ``seed``."""
    own, copies = (
        torch.stack(images).to(network.device, torch.float32) for images in ([image], shifted(image, seed))
    )
    logits = next((layer.name for layer in network.info.layers if layer.kind == "logits"), None)
    read = _read(network, own, (*objective.layers, *([logits] if logits else [])))
    if read is None:
        read = _read(network, own, objective.layers) or {}
    moved = _read(network, copies, objective.layers)
    rank, rank_of = _rank(objective, read)
    return Evaluation(
        rank=rank,
        rank_of=rank_of,
        class_probabilities=class_probabilities(read[logits][0], network) if logits in read else None,
        robust_activation=None if moved is None else _robust(objective(moved)),
    )


def shifted(image: Tensor, seed: int) -> list[Tensor]:
    """The image ``(C, H, W)``, `SHIFTS` times moved by whole pixels and mirrored at its border; a side of one
    pixel has nothing to mirror, and stays."""
    most = [min(side - 1, max(1, math.floor(SHIFT_PART * side))) for side in image.shape[1:]]
    generator = torch.Generator().manual_seed(seed)
    down, right = (torch.randint(0, 2 * m + 1, (SHIFTS,), generator=generator).tolist() for m in most)
    height, width = image.shape[1:]
    padded = functional.pad(image.unsqueeze(0), (most[1], most[1], most[0], most[0]), mode="reflect")[0]
    return [padded[:, y : y + height, x : x + width] for y, x in zip(down, right, strict=True)]


def _read(network: Network, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor] | None:
    """The activations of ``layers`` for all ``images``, in passes of `PASS_PIXELS`, or one by one where the
    network or memory takes no more; None where they cannot be read from such images."""
    together = max(1, PASS_PIXELS // images[0, 0].numel())
    for batches in (images.split(together), images.split(1)):
        try:
            read = network.prepared(tuple(dict.fromkeys(layers)), "float32")
            with torch.no_grad(), read.arithmetic():
                found = [read(batch) for batch in batches]
        except torch.AcceleratorError:
            raise
        except (Exception, FoldMismatch):
            continue
        return {layer: torch.cat([each[layer] for each in found]) for layer in found[0]}
    return None


def _rank(objective: Objective, read: dict[str, Tensor]) -> tuple[int | None, int | None]:
    """The unit's place among all units of its layer on the first image, 1 for the most active."""
    if objective.unit is None or not read.keys() >= set(objective.layers):
        return None, None
    values = objective.per_unit({layer: read[layer][:1] for layer in objective.layers})  # (1, units)
    if values is None:
        return None, None
    return 1 + int((values[0] > values[0, objective.unit]).sum()), values.shape[1]


def class_probabilities(logits: Tensor, network: Network) -> tuple[ClassProbability, ...] | None:
    """The likeliest classes of ``(N,)`` outputs, the likeliest first: their softmax, or themselves where they
    are probabilities already."""
    names, probabilities = network.classes, logits.double()
    if not (network.output_function in PROBABILITIES or _adds_up(probabilities)):
        probabilities = probabilities.softmax(dim=0)
    if len(logits) < 2 or not bool(probabilities.isfinite().all()):
        return None
    top = probabilities.topk(min(TOP_CLASSES, len(logits)))
    return tuple(
        ClassProbability(
            index=index, name=names[index] if names and index < len(names) else None, probability=probability
        )
        for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    )


def _adds_up(values: Tensor) -> bool:
    """Whether they are probabilities of classes of which one is right; logits are not, but by accident."""
    return bool((values >= 0).all()) and abs(float(values.sum()) - 1) < 1e-4


def _robust(activations: Tensor) -> RobustActivation | None:
    """Mean and standard deviation of ``(SHIFTS,)`` activations."""
    values = activations.double()
    if not bool(values.isfinite().all()):
        return None
    return RobustActivation(mean=float(values.mean()), std=float(values.std(correction=0)))
