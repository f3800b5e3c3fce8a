"""The settings of Langevin sampling: chains in place of ascents. No torch.

A chain of variant ``sgld`` samples the density ``exp(U(x) / T)`` with U = β f(x) + λ log D(x) - κ/2 |x - ½|²
over the pixels x of an image: f is the activation, D the discriminator, and β, λ, κ, T are settings.
Variant ``authors`` is what the paper's authors ran (Jiang, Chan, Zhang, Canny 2018, arXiv 1812.04604), and
samples no density that is known. `proxygrad.langevin.rules` has the formulas.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from proxygrad.errors import InvalidRequest, SizeUnsupported
from proxygrad.spec.base import Frozen
from proxygrad.spec.models import ModelInfo

SamplerName = Literal["ascent", "langevin"]
LangevinVariant = Literal["sgld", "authors"]
Bounds = Literal["reflect", "none"]

#: Most chains of one request, which are stepped as one batch.
MAX_CHAINS = 16
#: What each variant chooses where a request leaves it open. Of `authors`: their code has rate 10 for pixels
#: in 0…255, and equal weights for classifier and discriminator.
VARIANTS: dict[LangevinVariant, dict[str, Any]] = {
    "sgld": {"step_size": 1e-3, "discriminator_weight": 0.0, "pull": 0.0},
    "authors": {"step_size": 10 / 256, "discriminator_weight": 0.5, "pull": 0.0},
}
#: Settings of `sgld` alone: the gradients of `authors` have no scale, and its noise decays.
_OF_SGLD = ("beta", "temperature", "temperature_start", "step_size_start", "bounds")


class LangevinSettings(Frozen):
    """How chains move, and which of their states are kept as samples."""

    variant: LangevinVariant = Field(
        default="sgld",
        description="`sgld`: stochastic gradient Langevin dynamics, whose noise is fixed by step size and "
        "temperature; `authors`: preconditioned, with momentum and decaying noise, as in the paper's code.",
    )
    chains: int | None = Field(
        default=None,
        ge=1,
        le=MAX_CHAINS,
        description="Chains that run side by side, with seeds `seed`, `seed` + 1, …; `images` must be a "
        "multiple of it. Default: one for each image.",
    )
    burn_in: int = Field(default=200, ge=0, le=4096, description="Steps before the first that may be kept.")
    thinning: int = Field(default=50, ge=1, le=4096, description="Steps from one kept sample to the next.")
    step_size: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="`sgld`: ε, half of which multiplies the gradient, and whose product with the "
        "temperature "
        "is the variance of the noise of a step. `authors`: what multiplies the momentum. Default 0.001 and "
        "10/256.",
    )
    step_size_start: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="ε at the first step; it moves geometrically to `step_size` during the burn-in. Default: "
        "the same throughout.",
    )
    temperature: float = Field(
        default=1.0, ge=0.0, le=1e3, description="T of the kept samples. 0 is gradient ascent without noise."
    )
    temperature_start: float | None = Field(
        default=None,
        gt=0.0,
        le=1e3,
        description="T at the first step; it moves geometrically to `temperature` during the burn-in. "
        "Default: the same throughout.",
    )
    beta: float = Field(default=1000.0, ge=0.0, le=1e6, description="β, the weight of the activation.")
    discriminator_weight: float | None = Field(
        default=None,
        ge=0.0,
        le=1e4,
        description="`sgld`: λ, the weight of the discriminator's log-probability of a real image; "
        "default 0. `authors`: its share of the direction, 0 to 1; default 0.5. Above 0 the model needs a "
        "discriminator.",
    )
    pull: float | None = Field(
        default=None,
        ge=0.0,
        le=1e4,
        description="κ, the weight of the pull toward gray; default 0. With `sgld` alone it is a normal "
        "distribution of variance T / κ around it.",
    )
    bounds: Bounds = Field(
        default="reflect",
        description="What keeps pixels in [0, 1] in `sgld`. `reflect`: a step beyond an end comes back by as "
        "much, and the density is that within the box. `none`: nothing but `pull`, which must be above 0; "
        "images are clipped when they are delivered. `authors` clips.",
    )

    @model_validator(mode="after")
    def _fit_the_variant(self) -> Self:
        if self.variant == "authors":
            for name in _OF_SGLD:
                value = getattr(self, name)
                if value != type(self).model_fields[name].default:
                    raise ValueError(f"{name} {value} applies to variant 'sgld', not 'authors'")
            if (self.discriminator_weight or 0.0) > 1:
                raise ValueError(
                    f"discriminator_weight {self.discriminator_weight:g} of variant 'authors' is a "
                    "share; valid: 0 to 1"
                )
        elif self.bounds == "none" and not self.pull:
            raise ValueError(
                "bounds 'none' with pull 0: nothing would hold the pixels; valid: a pull above 0, or "
                "bounds 'reflect'"
            )
        if self.temperature == 0 and self.temperature_start is not None:
            raise ValueError(
                f"temperature_start {self.temperature_start:g} falls geometrically and never reaches "
                "temperature 0; valid: a temperature above 0, or no temperature_start"
            )
        for name in ("step_size_start", "temperature_start"):
            if getattr(self, name) is not None and self.burn_in == 0:
                raise ValueError(
                    f"{name} {getattr(self, name):g} needs a burn-in; valid: burn_in of 1 or more"
                )
        return self

    def completed(self) -> Self:
        """The same with the variant's values where nothing was given."""
        chosen = VARIANTS[self.variant]
        return self.model_copy(
            update={name: value for name, value in chosen.items() if getattr(self, name) is None}
        )

    def steps(self, samples: int) -> int:
        """Steps of a chain that keeps so many samples."""
        return self.burn_in + samples * self.thinning

    def keeps(self, step: int) -> bool:
        """Whether the state after so many steps is a sample."""
        return step > self.burn_in and (step - self.burn_in) % self.thinning == 0

    def step_size_at(self, step: int) -> float:
        """ε of a step, counted from 0, of completed settings."""
        if self.step_size is None:
            raise ValueError("these settings are not completed: they have no step_size")
        return self._moved(self.step_size_start, self.step_size, step)

    def temperature_at(self, step: int) -> float:
        """T of a step, counted from 0."""
        return self._moved(self.temperature_start, self.temperature, step)

    def _moved(self, begin: float | None, end: float, step: int) -> float:
        """From ``begin`` to ``end``, geometrically, during the burn-in."""
        if begin is None or step >= self.burn_in:
            return end
        return float(begin * (end / begin) ** (step / self.burn_in))


#: What stands in for the defaults of an ascent. Chains move pixels, by the gradient as it is, and begin with
#: uniform noise in [0, 1].
DEFAULTS: dict[str, Any] = {
    "parameterization": "pixels",
    "gaf": "none",
    "robustness": "none",
    "total_variation": 0.0,
    "l2": 0.0,
    "slope": 0.0,
    "starts": 1,
    "start_noise": 0.5,
}
#: Settings of an ascent that chains have too.
SHARED = frozenset(
    {
        *("sampler", "langevin", "proxy", "slope", "slope_end", "slope_hold", "slope_end_at"),
        *("spread_max_pool", "steps", "start_noise", "size_px", "seed"),
    }
)


def check_discriminator(model: ModelInfo, weight: float, size: tuple[int, int]) -> None:
    """Chains that a discriminator leads, with ``weight`` above 0, need one for images of ``size``.

    Raises `InvalidRequest` or `SizeUnsupported`.
    """
    asked, valid = f"langevin.discriminator_weight {weight:g}", "langevin.discriminator_weight 0"
    if model.discriminator is None:
        raise InvalidRequest(
            f"{asked}: model {model.name!r} has no discriminator; valid: {valid}, or a model with one"
        )
    own = model.input_shape[1:]
    if size != own:
        raise SizeUnsupported(
            f"{asked} with images of {size[0]}x{size[1]} px: the discriminator of model {model.name!r} takes "
            f"{own[0]}x{own[1]} px; leave size_px out, or valid: {valid}"
        )
