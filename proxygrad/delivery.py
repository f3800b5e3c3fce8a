"""From an optimised image to what is handed out: the PNG, and the truth about it.

Whatever number format the steps were computed in, what is reported here is measured in float32 on the network
itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from proxygrad.evaluation import evaluate
from proxygrad.images import decode_png, encode_png
from proxygrad.lane import Lane
from proxygrad.network import Network
from proxygrad.objectives import Channel, Logit, Neuron, Objective
from proxygrad.parameterizations import parameterization
from proxygrad.spec import Result, Spec

#: Two activations that differ by less than this part of the larger are equal but for float32 rounding.
ROUNDING = 1e-5
#: A gradient has faded when its largest entry is below this part of the largest that the lane has met.
#: docs/activations.md has what it finds.
FADED = 0.01


@dataclass(frozen=True)
class Rendering:
    """A finished visualization: the PNG's bytes and everything known about it."""

    png: bytes
    result: Result


def measure(network: Network, objective: Objective, image: Tensor) -> float:
    """The activation of one image ``(C, H, W)`` in [0, 1] on the network itself: float32, alone, no proxy."""
    with torch.no_grad():
        read = network.read(image.to(network.device, torch.float32).unsqueeze(0), objective.layers)
    return float(objective(read))


def first_image(network: Network, lane: Lane) -> Tensor:
    """The image that ``lane`` began with, ``(C, H, W)`` in [0, 1]: made again, from its seed or its start."""
    assert lane.image is not None, "a lane that ended without an error has been evaluated"
    channels, height, width = lane.image.shape
    shape = (channels, height, width)
    images = lane.maco or parameterization(lane.settings.parameterization, shape, network.device)
    again = Lane(lane.settings, lane.objective, lane.start)
    with torch.no_grad():
        return images.decode(again.begin(images, network.device))[0]


def is_stuck(lane: Lane, start: float, best: float) -> bool:
    """Whether ascent got nowhere, from ``start`` to ``best``: what `Result.stuck` says.

    Either ``best`` is above ``start`` by no more than `ROUNDING`; or the unit has gone silent: it is not
    above 0 and its gradient has faded. The latter is where plain ascent leads a unit that begins where its
    GELU, SiLU or Hardswish falls: from below 0 up to 0, and no further. It is asked of single units alone:
    of others, as of one that is to be made small, 0 may be the best there is.
    """
    if best - start <= ROUNDING * max(abs(start), abs(best)):
        return True
    single = isinstance(lane.objective, (Channel, Neuron, Logit))
    return single and best <= 0 and lane.steepest <= FADED * lane.steepest_ever


def deliver(network: Network, spec: Spec, lane: Lane, ran_s: float) -> Rendering:
    """Encode the image of the lane that ``spec`` asked for, decode it again, and measure what that achieves.

    ``ran_s``: seconds since the lane's first step.
    """
    assert lane.image is not None, "a lane that ended without an error has been evaluated"
    png = encode_png(lane.image)
    decoded = decode_png(png)
    achieved = measure(network, lane.objective, decoded)
    seen = evaluate(network, lane.objective, decoded, lane.settings.seed)
    start = measure(network, lane.objective, first_image(network, lane))
    height, width = lane.image.shape[1:]
    result = Result(
        spec=_as_used(spec, lane.objective),
        achieved_activation=achieved,
        start_activation=start,
        robust_activation=seen.robust_activation,
        rank=seen.rank,
        rank_of=seen.rank_of,
        class_probabilities=seen.class_probabilities,
        stuck=is_stuck(lane, start, measure(network, lane.objective, lane.image)),
        curve=tuple(lane.curve),
        steps_done=lane.step,
        width_px=width,
        height_px=height,
        digest=network.info.digest,
        engine_version=network.info.engine_version,
        device=str(network.device),
        dtype=lane.dtype,
        ran_s=ran_s,
        steps_per_s=lane.step / ran_s if ran_s > 0 else 0.0,
    )
    return Rendering(png, result)


def _as_used(spec: Spec, objective: Objective) -> Spec:
    position = objective.position if isinstance(objective, Neuron) else None
    return spec.model_copy(update={"position": position})
