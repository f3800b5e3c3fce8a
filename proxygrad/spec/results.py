"""The result of a visualization: what was measured of each image, and how it was made."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from proxygrad.spec.base import Tolerant
from proxygrad.spec.visualization import StoredSpec

Role = Literal["proxygrad", "baseline"]


class RobustActivation(Tolerant):
    """The unit's activation on shifted copies of the delivered image."""

    mean: float = Field(description="Mean over the copies, in the unit's own scale.")
    std: float = Field(description="Standard deviation over the copies, in the unit's own scale.")


class ClassProbability(Tolerant):
    """The probability that the model gives to one class on the delivered image."""

    index: int = Field(description="Index of its logit, from 0.")
    name: str | None = Field(default=None, description="Its name, if known.")
    probability: float = Field(
        description="Softmax over all logits, 0 to 1; the network's own number where it returns "
        "probabilities."
    )


class StartResult(Tolerant):
    """One of several starts of an image."""

    seed: int = Field(description="Its seed.")
    activation: float | None = Field(
        description="What it reached in the trial, by which the best was chosen: the highest activation; "
        "where steps see random views, the mean over the second half of the trial. `null` where it failed."
    )
    chosen: bool = Field(description="Whether it went on.")


class Measured(Tolerant):
    """The measurements of one image. The unit's activation is in its own scale throughout."""

    achieved_activation: float = Field(
        description="The unit's activation on the delivered image: the PNG decoded again, the original "
        "float32 network, no transforms."
    )
    start_activation: float = Field(
        description="The unit's activation on the start image, measured the same way but before rounding to "
        "8 bits."
    )
    robust_activation: RobustActivation | None = Field(
        default=None,
        description="The unit's activation on 8 copies of the delivered image, each shifted at random by "
        "whole pixels, up to 4 % of the side and mirrored at the border. `null` in records that have none.",
    )
    rank: int | None = Field(
        default=None,
        description="The unit's rank among the units of its layer on the delivered image, by the same "
        "objective; 1 is the most active. `null` in old records.",
    )
    rank_of: int | None = Field(default=None, description="Number of units of the layer, for `rank`.")
    class_probabilities: tuple[ClassProbability, ...] | None = Field(
        default=None,
        description="The likeliest classes of the delivered image, at most 5, likeliest first; `null` if "
        "the model does not classify images of this size, and in old records.",
    )
    stuck: bool = Field(
        description="True when ascent got nowhere: the image, before rounding to 8 bits, is above the start "
        "activation by no more than float32 rounding; or the unit, of a layer made by a GELU, SiLU, Mish or "
        "Hardswish, has gone silent, at or below 0 with a gradient below 1 % of the largest that was "
        "met. Of a chain: the activation never had a gradient."
    )
    curve: tuple[float, ...] = Field(
        description="The unit's activation before each step and after the last, as the steps saw it: in "
        "their number format, and of the moved view where there is one; steps_done + 1 values."
    )
    steps_done: int = Field(description="Gradient steps done.")
    starts: tuple[StartResult, ...] = Field(
        default=(), description="The starts that were tried for the image. Empty where there was one."
    )


class ImageResult(Measured):
    """One of several images: its role, its seed and its measurements."""

    role: Role = Field(
        description="`proxygrad`: as requested; `baseline`: by plain activation maximization, to compare."
    )
    seed: int = Field(
        description="Its seed: of several starts that of the chosen one; else that of the request, and one "
        "more for each further image; of a sample, that of its chain."
    )
    chain: int | None = Field(
        default=None,
        description="Of a sample, the number of its chain, from 0; its step is `steps_done`, and its curve "
        "ends there. `null` unless `sampler` is `langevin`.",
    )


class ChainDiagnostics(Tolerant):
    """How well one chain has mixed, by the activation at each of its steps after the burn-in."""

    chain: int = Field(description="Its number, from 0.")
    seed: int = Field(description="Its seed.")
    mean_activation: float = Field(description="Mean of the activation.")
    autocorrelation_time: float | None = Field(
        description="Integrated autocorrelation time in steps (Geyer 1992, initial monotone sequence); "
        "`null` where it cannot be told: a constant activation, or fewer than 4 steps."
    )
    effective_sample_size: float | None = Field(
        description="How many independent samples tell as much of the mean: steps over autocorrelation time."
    )


class SamplingDiagnostics(Tolerant):
    """How well all chains have mixed, by the activation at each step after the burn-in."""

    draws: int = Field(description="Steps of each chain after the burn-in.")
    effective_sample_size: float | None = Field(
        description="Of all chains together (Vehtari et al. 2021, arXiv 1903.08008); `null` where it cannot "
        "be told."
    )
    r_hat: float | None = Field(
        description="Rank-normalized split R-hat (ibid.): 1 where the chains agree; above 1.01 they have not "
        "run long enough. `null` where it cannot be told."
    )
    chains: tuple[ChainDiagnostics, ...] = Field(description="Each chain for itself.")


class BaselineResult(Tolerant):
    """The best image of plain activation maximization from the same starts."""

    image: int = Field(description="Its number among `images`, from 0.")
    achieved_activation: float = Field(description="The unit's activation on that image.")
    start_activation: float = Field(description="The unit's activation on the image it started from.")
    stuck: bool = Field(description="True if plain ascent got nowhere.")


class Result(Measured):
    """The result of a visualization. Every value is of what was done; none is repeated from the request.

    Of several images, the measurements are those of the one with the highest achieved activation, `best`.
    """

    spec: StoredSpec = Field(description="The settings as used, with every default filled in.")
    best: int = Field(
        default=0,
        description="Number of the image that the values beside this one are of: the one with the highest "
        "achieved activation among those with role `proxygrad`.",
    )
    images: tuple[ImageResult, ...] = Field(
        default=(),
        description="Every image, by number: those with role `proxygrad` in the order of their seeds, then "
        "the plain ones in the same order. Empty where there is only one: its values stand beside this.",
    )
    baseline: BaselineResult | None = Field(
        default=None, description="Plain activation maximization, if compared; else `null`."
    )
    baseline_activation: float | None = Field(
        default=None,
        description="The highest activation that plain activation maximization achieved, if compared; else "
        "`null`.",
    )
    sampling: SamplingDiagnostics | None = Field(
        default=None, description="How well the chains have mixed; `null` unless `sampler` is `langevin`."
    )
    width_px: int = Field(description="Width of each image in pixels.")
    height_px: int = Field(description="Height of each image in pixels.")
    digest: str = Field(description="Digest of the model.")
    engine_version: str = Field(description="Version of the engine.")
    device: str = Field(description="Where the steps were computed, e.g. `cpu` or `cuda:0`.")
    kernels: str = Field(
        default="",
        description="What rounding depends on besides: PyTorch, instruction set and threads, e.g. "
        "`torch 2.13.0, AVX512, 2 threads`; on CUDA the GPU. Where model, request, engine version, `device`, "
        "`dtype` and this are equal, so are the bytes of the images, on a CPU.",
    )
    dtype: str = Field(description="Number format of the steps: `float32`, `tf32` or `bfloat16`.")
    ran_s: float = Field(
        description="Seconds from the first step to the measured image; for a resumed job, including those "
        "before its checkpoint."
    )
    steps_per_s: float = Field(description="Gradient steps per second, each for all images at once.")

    def of(self, images: tuple[ImageResult, ...]) -> Result:
        """The result with these images, and the best of each role found anew."""
        best, plain = (_highest(images, role) for role in ("proxygrad", "baseline"))
        baseline = None
        if plain is not None:
            own = images[plain]
            baseline = BaselineResult(
                image=plain,
                achieved_activation=own.achieved_activation,
                start_activation=own.start_activation,
                stuck=own.stuck,
            )
        shown = images[best if best is not None else 0]
        return self.model_copy(
            update={
                **{name: getattr(shown, name) for name in Measured.model_fields},
                "best": best or 0,
                "images": images,
                "baseline": baseline,
                "baseline_activation": baseline.achieved_activation if baseline else None,
            }
        )

    def image(self, number: int) -> ImageResult:
        """The measurements of one image, also where there is only one."""
        if self.images:
            return self.images[number]
        values = {name: getattr(self, name) for name in Measured.model_fields}
        chosen = [start.seed for start in self.starts if start.chosen]
        return ImageResult(role="proxygrad", seed=chosen[0] if chosen else self.spec.seed, **values)


def _highest(images: tuple[ImageResult, ...], role: Role) -> int | None:
    """The number of the image of that role with the highest activation, the first of equals."""
    numbers = [number for number, image in enumerate(images) if image.role == role]
    return max(numbers, key=lambda number: images[number].achieved_activation, default=None)
