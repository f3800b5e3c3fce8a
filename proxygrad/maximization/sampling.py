"""`sample`: Langevin chains instead of an ascent, and the `SampleSet` that shows what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from PIL import Image
from torch import Tensor, nn

from proxygrad.engine.capacity import DEFAULT_MAX_LANES
from proxygrad.engine.lane import Lane
from proxygrad.engine.rendering import measure, sampling_diagnostics
from proxygrad.errors import ChainDiverged, InvalidRequest
from proxygrad.images import encode_png, grid, save_animation
from proxygrad.maximization.arguments import settings_of
from proxygrad.maximization.ascent import as_network, image_size, run_lanes
from proxygrad.maximization.labels import label
from proxygrad.maximization.parsing import ObjectiveLike, as_objectives, is_single
from proxygrad.maximization.progress import OnStep, progress_bar
from proxygrad.networks.ambient import differentiable
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.precision import Arithmetic, Precision
from proxygrad.spec.langevin import SHARED, LangevinSettings, LangevinVariant
from proxygrad.spec.results import SamplingDiagnostics
from proxygrad.spec.settings import MAX_STEPS, AscentSettings

#: A notebook shows pixels this large at least: `grid` of images below it is enlarged.
SHOWN_PX = 64


@dataclass(frozen=True, repr=False, eq=False)
class SampleSet:
    """The samples of some chains of one objective, and how well the chains have mixed. Notebooks show them.

    ``images``: ``(chains, samples, C, H, W)`` float32 on the CPU, as the chains had them: with bounds
    ``none`` beyond [0, 1] too. ``activations``: the objective of each image, alone on the network itself in
    float32, ``(chains, samples)``. ``steps``: after how many steps each sample of a chain was kept.
    ``curves``: the activation of each chain before each step and after the last one, ``(chains, steps + 1)``.
    ``diagnostics``: of the activation after the burn-in. ``objective`` and ``settings`` are those used, with
    every default filled in; ``settings.seed`` is that of the first chain.
    """

    images: Tensor
    activations: Tensor
    steps: tuple[int, ...]
    curves: Tensor
    diagnostics: SamplingDiagnostics
    objective: Objective
    settings: AscentSettings
    dtype: Arithmetic

    def grid(self) -> Image.Image:
        """All samples as one picture: a row for each chain, a column for each sample."""
        enlarged = self.images.repeat_interleave(self._times, dim=3).repeat_interleave(self._times, dim=4)
        return grid(enlarged.flatten(0, 1).unbind(0), columns=self.images.shape[1])

    def animation(self, path: str | Path, chain: int = 0, frame_ms: int = 200) -> None:
        """Write the samples of a chain in turn as an animated WebP."""
        chains = len(self.images)
        if not 0 <= chain < chains:
            raise InvalidRequest(f"chain {chain} is out of range; valid: 0 to {chains - 1}")
        save_animation(self.images[chain].unbind(0), path, frame_ms, self._times)

    @property
    def _times(self) -> int:
        return -(-SHOWN_PX // max(self.images.shape[3:]))

    def __repr__(self) -> str:
        chains, samples = self.activations.shape
        r_hat = self.diagnostics.r_hat
        return (
            f"SampleSet({label(self.objective)!r}, {chains} chains x {samples} samples, activation "
            f"{self.activations.mean():.4g} ± {self.activations.std(correction=0):.2g}, "
            f"R-hat {'unknown' if r_hat is None else f'{r_hat:.3f}'})"
        )

    def _repr_png_(self) -> bytes | None:
        """For IPython: the grid; None for channels that a PNG has not."""
        if self.images.shape[2] not in (1, 3):
            return None
        pixels = torch.frombuffer(bytearray(self.grid().tobytes()), dtype=torch.uint8)
        width, height = self.grid().size
        return encode_png(pixels.view(height, width, 3).permute(2, 0, 1).float() / 255)


@overload
def sample(network: Network | nn.Module, objectives: ObjectiveLike, **settings: Any) -> SampleSet: ...


@overload
def sample(
    network: Network | nn.Module, objectives: Sequence[ObjectiveLike], **settings: Any
) -> list[SampleSet]: ...


@differentiable()  # whatever the caller's modes are
def sample(  # noqa: PLR0913, each of them named
    network: Network | nn.Module,
    objectives: ObjectiveLike | Sequence[ObjectiveLike],
    *,
    chains: int = 4,
    samples: int = 4,
    variant: LangevinVariant = "sgld",
    seed: int = 0,
    progress: bool | None = None,
    on_step: OnStep | None = None,
    max_lanes: int = DEFAULT_MAX_LANES,
    precision: Precision = "auto",
    **settings: Any,
) -> SampleSet | list[SampleSet]:
    """Sample images by the activation of each objective with Langevin chains, as one batch.

    One objective gives a `SampleSet`, a list of them a list.

    Args:
        network: a `Network`, or a module of torchvision or timm. Its `Network.discriminator` is used where
            ``discriminator_weight`` is above 0.
        objectives: as of `proxygrad.maximize`.
        chains: of each objective, with seeds ``seed``, ``seed`` + 1, …
        samples: states that each chain keeps, ``thinning`` steps apart, after ``burn_in`` steps.
        variant: ``"sgld"``, which samples a known density, or ``"authors"`` (`proxygrad.spec.langevin`).
        seed: of the first chain's start and noise.
        progress, on_step, max_lanes, precision: as of `proxygrad.maximize`.
        **settings: the other fields of `LangevinSettings`: ``burn_in``, ``thinning``, ``step_size``,
            ``temperature``, ``beta``, ``discriminator_weight``, ``pull``, ``bounds``, …; and ``slope``,
            ``slope_end``, ``proxy``, ``start_noise``, ``size_px`` as of an ascent.

    Raises:
        InvalidRequest: as of `proxygrad.maximize`; or there is no discriminator, or of another size.
        ChainDiverged: a chain left what it can sample; names the chain and the step.
    """
    network = as_network(network)
    asked = as_objectives(objectives, network)
    completed = _settings(chains, samples, {"variant": variant, "seed": seed, **settings})
    size = image_size(network, completed)
    lanes = [_lanes(network, objective, completed, size, chains) for objective in asked]
    every = [lane for own in lanes for lane in own]
    total = sum(lane.settings.steps for lane in every)
    with progress_bar(progress, len(every), total, on_step) as moved:
        run_lanes(network, every, moved, max_lanes, precision)
    found = [_samples(network, own) for own in lanes]
    return found[0] if is_single(objectives) else found


def _settings(chains: int, samples: int, given: dict[str, Any]) -> AscentSettings:
    """Completed settings. Raises `InvalidRequest` for what is unknown or out of its limits."""
    for name, count in (("chains", chains), ("samples", samples)):
        if not hasattr(count, "__index__") or count < 1:
            raise InvalidRequest(f"{name} {count!r} must be a whole number, at least 1")
    own = {name: value for name, value in given.items() if name in LangevinSettings.model_fields}
    rest = {name: value for name, value in given.items() if name not in own}
    for name in rest:
        if name not in SHARED - {"sampler", "langevin", "steps"}:
            valid = sorted({*LangevinSettings.model_fields, *SHARED} - {"sampler", "langevin", "steps"})
            raise InvalidRequest(f"unknown keyword {name!r}; valid: {', '.join(valid)}")
    settings = settings_of({**rest, "sampler": "langevin", "langevin": own}, ())
    langevin = settings.langevin or LangevinSettings()
    steps = langevin.steps(samples)
    if steps > 16 * MAX_STEPS:
        raise InvalidRequest(f"samples {samples} make {steps} steps; valid: up to {16 * MAX_STEPS}")
    return settings.model_copy(update={"steps": steps})


def _lanes(
    network: Network, objective: Objective, settings: AscentSettings, size: tuple[int, int], chains: int
) -> list[Lane]:
    completed = objective.at({layer: network.layer_shape(layer, size) for layer in objective.layers})
    seeds = range(settings.seed, settings.seed + chains)
    return [Lane(settings.model_copy(update={"seed": seed}), completed) for seed in seeds]


def _samples(network: Network, lanes: Sequence[Lane]) -> SampleSet:
    for number, lane in enumerate(lanes):
        if isinstance(lane.error, ChainDiverged):
            which = f"chain {number} of {len(lanes)} (seed {lane.settings.seed})"
            raise ChainDiverged(lane.error.step, lane.error.reason, which)
        lane.finished_image  # noqa: B018 - raises any other error
    first = lanes[0]
    langevin = first.langevin or LangevinSettings()
    images = torch.stack([torch.stack(lane.samples) for lane in lanes])
    activations = [[measure(network, lane.objective, each) for each in lane.samples] for lane in lanes]
    return SampleSet(
        images=images.to("cpu", torch.float32),
        activations=torch.tensor(activations),
        steps=tuple(langevin.steps(number + 1) for number in range(images.shape[1])),
        curves=torch.tensor([lane.curve for lane in lanes]),
        diagnostics=sampling_diagnostics(lanes),
        objective=first.objective,
        settings=first.settings,
        dtype=first.dtype,
    )
