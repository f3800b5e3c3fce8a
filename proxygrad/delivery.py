"""From an optimised image to what is handed out: the PNG, and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from proxygrad.images import decode_png, encode_png
from proxygrad.lane import Lane
from proxygrad.network import Network
from proxygrad.objectives import Neuron, Objective
from proxygrad.spec import Result, Spec


@dataclass(frozen=True)
class Rendering:
    """A finished visualization: the PNG's bytes and everything known about it."""

    png: bytes
    result: Result


def measure(network: Network, objective: Objective, image: Tensor) -> float:
    """The activation of one image ``(C, H, W)`` in [0, 1] on the network itself: float32, alone, no proxy."""
    with torch.no_grad():
        read = network.read(image.to(network.device).unsqueeze(0), objective.layers)
    return float(objective(read))


def deliver(network: Network, spec: Spec, lane: Lane, ran_s: float) -> Rendering:
    """Encode the image of the lane that ``spec`` asked for, decode it again, and measure what that achieves.

    ``ran_s``: seconds since the lane's first step.
    """
    assert lane.image is not None, "a lane that ended without an error has been evaluated"
    png = encode_png(lane.image)
    achieved = measure(network, lane.objective, decode_png(png))
    height, width = lane.image.shape[1:]
    result = Result(
        spec=_as_used(spec, lane.objective),
        achieved_activation=achieved,
        start_activation=lane.curve[0],
        stuck=lane.stuck,
        curve=tuple(lane.curve),
        steps_done=lane.step,
        width_px=width,
        height_px=height,
        digest=network.info.digest,
        engine_version=network.info.engine_version,
        device=str(network.device),
        dtype=str(lane.image.dtype).removeprefix("torch."),
        ran_s=ran_s,
        steps_per_s=lane.step / ran_s if ran_s > 0 else 0.0,
    )
    return Rendering(png, result)


def _as_used(spec: Spec, objective: Objective) -> Spec:
    position = objective.position if isinstance(objective, Neuron) else None
    return spec.model_copy(update={"position": position})
