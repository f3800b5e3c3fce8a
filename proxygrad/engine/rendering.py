"""Rendering: encodes the optimized images as PNGs and measures what they achieve.

Whatever number format the steps were computed in, everything here is measured in float32 on the network
itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from proxygrad.engine.ceiling import ceiling
from proxygrad.engine.evaluation import evaluate
from proxygrad.engine.lane import FADED, Lane, falls
from proxygrad.images import decode_png, encode_png
from proxygrad.kernels import kernels_of
from proxygrad.langevin.diagnostics import autocorrelation_time, effective_sample_size, r_hat
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.objectives.units import Margin
from proxygrad.parameterizations import parameterization
from proxygrad.spec import ImageResult, Measured, Result, Role, Spec
from proxygrad.spec.results import ChainDiagnostics, SamplingDiagnostics, StartResult

#: Two activations that differ by less than this part of the larger are equal but for float32 rounding.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Rendering:
    """A finished visualization: its `Result`, and a PNG's bytes for each of `Result.images`."""

    images: tuple[bytes, ...]
    result: Result

    @property
    def png(self) -> bytes:
        """The PNG of the best image."""
        return self.images[self.result.best]

    @property
    def activation(self) -> float:
        """Of the best image, as decoded from its PNG: `Result.achieved_activation`."""
        return self.result.achieved_activation

    @property
    def start_activation(self) -> float:
        """Of the image that the best one started from."""
        return self.result.start_activation

    @property
    def curve(self) -> tuple[float, ...]:
        """The activation before each step and after the last one, as the steps saw it."""
        return self.result.curve

    @property
    def stuck(self) -> bool:
        """Whether ascent got nowhere (`is_stuck`)."""
        return self.result.stuck

    def save(self, path: str | Path) -> None:
        """Write the PNG of the best image."""
        Path(path).write_bytes(self.png)

    def __repr__(self) -> str:
        spec, found = self.result.spec, self.result
        stuck = ", stuck" if found.stuck else ""
        return (
            f"Rendering('{spec.layer}:{spec.unit}', activation {found.start_activation:.4g} → "
            f"{found.achieved_activation:.4g}{stuck}, {found.width_px}x{found.height_px} px)"
        )

    def _repr_png_(self) -> bytes:
        """For IPython: the best image."""
        return self.png


def measure(network: Network, objective: Objective, image: Tensor) -> float:
    """The activation of one image ``(C, H, W)`` in [0, 1] on the network itself: float32, alone, no proxy."""
    with torch.no_grad():
        read = network.read(image.to(network.device, torch.float32).unsqueeze(0), objective.layers)
    return float(objective(read))


def first_image(network: Network, lane: Lane) -> Tensor:
    """The image that ``lane`` began with, ``(C, H, W)`` in [0, 1], made again from its seed or its start."""
    channels, height, width = lane.finished_image.shape
    shape = (channels, height, width)
    images = lane.overrides.parameterization or parameterization(
        lane.settings.parameterization, shape, network.device
    )
    again = Lane(lane.settings, lane.objective, lane.start)
    with torch.no_grad():
        return images.decode(again.begin(images, network.device))[0]


def is_stuck(network: Network, lane: Lane, start: float, best: float, bound: float = FADED) -> bool:
    """Whether ascent got nowhere, from ``start`` to ``best``: the value of `Result.stuck`.

    Either ``best`` is above ``start`` by no more than `ROUNDING`, and below the highest value that the unit
    can have (`proxygrad.engine.ceiling`); or the unit has gone silent: it is not above 0 and its gradient has
    faded, to ``bound`` of the largest that was met. The latter is where plain ascent leads a unit that begins
    where its GELU, SiLU or Hardswish falls: from below 0 up to 0, and no further. It applies to single units
    of layers that one of these made (`proxygrad.engine.lane.falls`) alone: of others, as of a logarithm of
    probabilities or of a unit that is minimized, 0 may be the best there is.
    """
    if best - start <= ROUNDING * max(abs(start), abs(best)):
        return not _at_ceiling(network, lane, best)
    faded = lane.steepest <= bound * lane.steepest_ever
    return best <= 0 and faded and lane.objective.unit is not None and falls(network, lane.objective)


def _at_ceiling(network: Network, lane: Lane, best: float) -> bool:
    """Whether a single unit has the highest value that the function behind its layer returns."""
    if lane.objective.unit is None or isinstance(lane.objective, Margin) or lane.image is None:
        return False
    highest = ceiling(network, lane.objective.layers[0], lane.image)
    return best >= highest - ROUNDING * max(1.0, abs(highest))


def render(
    network: Network,
    spec: Spec,
    lanes: Sequence[Lane],
    ran_s: float,
    on_image: Callable[[], None] = lambda: None,
) -> Rendering:
    """Encode the images of ``spec``, decode them again, and measure what they achieve.

    ``lanes``: those of the request, then the plain ones beside them. ``ran_s``: seconds since their first
    step. ``on_image`` is called after each image. Raises the error of a lane that has failed.
    """
    images, seen = list[bytes](), list[ImageResult]()
    for number, lane in enumerate(lanes):
        lane.finished_image  # noqa: B018 - raises the error of a lane that has failed
        if lane.langevin is not None:
            pictures = [_sampled(network, lane, number, sample) for sample in range(len(lane.samples))]
        else:
            pictures = [_encoded(network, lane, "proxygrad" if number < spec.images else "baseline")]
        for png, measured in pictures:
            images.append(png)
            seen.append(measured)
            on_image()
    first, lane = seen[0], lanes[0]
    height, width = lane.finished_image.shape[1:]
    result = Result(
        **{name: getattr(first, name) for name in Measured.model_fields},
        spec=_as_used(spec, lane.objective),
        sampling=sampling_diagnostics(lanes) if lane.langevin is not None else None,
        width_px=width,
        height_px=height,
        digest=network.info.digest,
        engine_version=network.info.engine_version,
        device=str(network.device),
        kernels=kernels_of(network.device),
        dtype=lane.dtype,
        ran_s=ran_s,
        steps_per_s=lane.step / ran_s if ran_s > 0 else 0.0,
    )
    return Rendering(tuple(images), result if len(seen) == 1 else result.of(tuple(seen)))


def _encoded(network: Network, lane: Lane, role: Role) -> tuple[bytes, ImageResult]:
    """The PNG of a lane that has ended, and the measurements of it decoded again."""
    image = lane.finished_image
    png, measured = _measured(network, lane, image, role)
    start, best = measured.start_activation, measure(network, lane.objective, image)
    return png, measured.model_copy(update={"stuck": is_stuck(network, lane, start, best)})


def _sampled(network: Network, lane: Lane, chain: int, sample: int) -> tuple[bytes, ImageResult]:
    """The PNG of one sample of a chain that has ended, and the measurements of it decoded again."""
    langevin = lane.langevin
    if langevin is None:
        raise ValueError("the lane is no chain")
    png, measured = _measured(network, lane, lane.samples[sample], "proxygrad")
    step = langevin.steps(sample + 1)
    found = {"chain": chain, "curve": tuple(lane.curve[: step + 1]), "steps_done": step}
    return png, measured.model_copy(update=found)


def _measured(network: Network, lane: Lane, image: Tensor, role: Role) -> tuple[bytes, ImageResult]:
    png = encode_png(image)
    decoded = decode_png(png)
    seen = evaluate(network, lane.objective, decoded, lane.settings.seed)
    measured = ImageResult(
        role=role,
        seed=lane.settings.seed,
        achieved_activation=measure(network, lane.objective, decoded),
        start_activation=measure(network, lane.objective, first_image(network, lane)),
        robust_activation=seen.robust_activation,
        rank=seen.rank,
        rank_of=seen.rank_of,
        class_probabilities=seen.class_probabilities,
        stuck=lane.steepest_ever == 0,
        curve=tuple(lane.curve),
        steps_done=lane.step,
        starts=start_results(lane),
    )
    return png, measured


def start_results(lane: Lane) -> tuple[StartResult, ...]:
    """The starts that competed with a lane that has ended, in the order of their seeds; empty without."""
    if lane.trial is None:
        return ()
    pairs = zip(lane.trial.lanes, lane.trial.scores, strict=True)
    return tuple(
        StartResult(
            seed=each.settings.seed, activation=score if math.isfinite(score) else None, chosen=each is lane
        )
        for each, score in pairs
    )


def sampling_diagnostics(lanes: Sequence[Lane]) -> SamplingDiagnostics:
    """How well chains of one request have mixed, by their activations after the burn-in."""
    burn_in = lanes[0].langevin.burn_in if lanes[0].langevin is not None else 0
    draws = torch.tensor([lane.curve[burn_in + 1 :] for lane in lanes], dtype=torch.float64)
    return SamplingDiagnostics(
        draws=draws.shape[1],
        effective_sample_size=effective_sample_size(draws),
        r_hat=r_hat(draws),
        chains=tuple(
            _of_chain(number, lane.settings.seed, row)
            for number, (lane, row) in enumerate(zip(lanes, draws, strict=True))
        ),
    )


def _of_chain(number: int, seed: int, draws: Tensor) -> ChainDiagnostics:
    time = autocorrelation_time(draws)
    return ChainDiagnostics(
        chain=number,
        seed=seed,
        mean_activation=float(draws.mean()),
        autocorrelation_time=time,
        effective_sample_size=None if time is None else len(draws) / time,
    )


def _as_used(spec: Spec, objective: Objective) -> Spec:
    return spec.model_copy(update={"position": objective.position})
