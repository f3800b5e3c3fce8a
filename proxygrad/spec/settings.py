"""The settings of a gradient ascent, and the presets that choose several of them at once.

No torch: the gateway checks and completes requests with the same definition that the engine works on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, WithJsonSchema, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from proxygrad.spec import langevin as chains
from proxygrad.spec.base import Frozen
from proxygrad.spec.langevin import LangevinSettings, SamplerName
from proxygrad.spec.robustness import Robustness, RobustnessName

Preset = Literal["natural", "max", "fast"]
Proxy = Literal["surrogate", "network"]
ParameterizationName = Literal["pixels", "fourier", "maco"]
UpdateName = Literal["normalized", "sgd", "adam", "whitened"]
GafName = Literal["none", "atan", "tanh", "log"]

#: What `slope` "auto" uses where the gradient itself is zero. Measured: docs/measurements/search.md.
AUTO_SLOPE = 0.05
#: Most start images that are tried for one image.
MAX_STARTS = 16
#: Steps of each start before the best one goes on, and at most this part of all. Measured likewise.
TRIAL_STEPS, TRIAL_PART = 8, 4
#: Around mid-gray. Plain gray is a poor start: all positions are alike and many gradients vanish; 0.05 is
#: what the measurements in docs/measurements/images.md used.
START_NOISE = 0.05
MAX_STEPS = 4096
#: α and β of a gradient activation, as in the first of Liu et al.'s runs (arXiv 2107.04228).
GAF_ALPHA, GAF_BETA = 0.1, 20.0
MAX_SEED = 2**63 - 1
MIN_SIZE_PX = 8
MAX_SIZE_PX = 1024

#: What each preset chooses, where a request leaves it open. The fields' own defaults are those of `natural`.
#: How the values were found: docs/measurements/images.md.
PRESETS: dict[Preset, dict[str, Any]] = {
    "natural": {
        "parameterization": "fourier",
        "gaf": "log",
        "gaf_beta": GAF_BETA,
        "robustness": "standard",
        "total_variation": 0.01,
        "l2": 0.05,
        "slope": 0.02,
        "starts": 1,
        "steps": 128,
        "step_size": 0.05,
    },
    "max": {
        "parameterization": "pixels",
        "gaf": "log",
        "gaf_beta": 200.0,
        "robustness": "none",
        "total_variation": 0.0,
        "l2": 0.0,
        "slope": "auto",
        "starts": 8,
        "steps": 128,
        "step_size": 0.2,
    },
    "fast": {
        "parameterization": "fourier",
        "gaf": "log",
        "gaf_beta": GAF_BETA,
        "robustness": "none",
        "total_variation": 0.0,
        "l2": 0.0,
        "slope": 0.02,
        "starts": 1,
        "steps": 12,
        "step_size": 0.25,
    },
}


def _slope(given: Any, check: Any) -> Any:
    """One error in place of one for each kind of value."""
    try:
        return check(given)
    except ValidationError as error:
        raise PydanticCustomError("number_or_name", "should be 0 to 1, or 'auto'") from error


SlopeRule = Literal["auto"]
Slope = Annotated[float, Field(ge=0.0, le=1.0)] | SlopeRule
#: An enumeration of one: client generators know no default of a number beside a constant.
_SLOPE_SCHEMA = {
    "anyOf": [{"type": "number", "minimum": 0.0, "maximum": 1.0}, {"type": "string", "enum": ["auto"]}]
}


def slope_text(slope: Slope) -> str:
    """The slope for people."""
    return slope if isinstance(slope, str) else f"{slope:g}"


class AscentSettings(Frozen):
    """The settings of one ascent. The defaults are those of preset `natural`."""

    preset: Preset = Field(
        default="natural",
        description="`natural`: robust and smooth, what one would print; `max`: the highest activation; "
        "`fast`: a preview in about a tenth of the time. Sets the defaults of what is not given.",
    )
    sampler: SamplerName = Field(
        default="ascent",
        description="`ascent`: each image climbs to a maximum; `langevin`: chains sample images by their "
        "activation, with the settings under `langevin`.",
    )
    langevin: LangevinSettings | None = Field(
        default=None, description="How chains move. Needs `sampler` `langevin`."
    )
    proxy: Proxy = Field(
        default="surrogate",
        description="`surrogate`: one forward pass of the network, the slope in its backward pass; "
        "`network`: the gradient of a second network, which has the slope in its forward pass too.",
    )
    slope: Annotated[Slope, WrapValidator(_slope), WithJsonSchema(_SLOPE_SCHEMA)] = Field(
        default=0.02,
        description="Slope of every rectifier for negative inputs in the backward pass (ProxyGrad); "
        "0 is plain activation maximization. `auto`: 0.05 where the gradient itself is zero, until the "
        "activation has risen, and else 0.",
    )
    slope_end: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="The slope at the last step, reached linearly; default: the same throughout.",
    )
    slope_hold: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="Share of the steps during which `slope` is held, before it moves to `slope_end`.",
    )
    slope_end_at: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the steps after which `slope_end` is reached; it is held from there on.",
    )
    starts: int = Field(
        default=1,
        ge=1,
        le=MAX_STARTS,
        description="How many start images are tried for each image. After `trial_steps` the one with the "
        "highest activation goes on, with the step size it began with. `result.starts` names it.",
    )
    trial_steps: int | None = Field(
        default=None,
        ge=0,
        le=MAX_STEPS,
        description="Of `steps`, how many each start makes before the best one is chosen, with steps that "
        "fall to 0. Default 8, or a quarter of `steps` where that is less. Needs `starts` of 2 or more.",
    )
    spread_max_pool: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Share of the gradient of 2-d max pooling that goes to the whole window in equal parts; "
        "0 leaves all of it to the largest value.",
    )
    parameterization: ParameterizationName = Field(
        default="fourier",
        description="What the steps move. `pixels`: the values themselves; `fourier`: coefficients scaled by "
        "1/f, in decorrelated colors; `maco`: phases only, under a natural spectrum.",
    )
    update: UpdateName = Field(
        default="normalized",
        description="`normalized` gradient ascent, `sgd` with momentum, `adam`, or `whitened`: along the "
        "gradient with all its spatial frequencies at one magnitude, for `pixels` only.",
    )
    gaf: GafName = Field(
        default="log", description="Gradient activation function, which enlarges small values."
    )
    gaf_alpha: float = Field(
        default=GAF_ALPHA,
        gt=0.0,
        le=100.0,
        description="α of the gradient activation, a factor of what it returns. `sgd` only: there it is one "
        "of the step size; `normalized` and `whitened` divide by it again; in `adam` it cancels but for ε.",
    )
    gaf_beta: float = Field(
        default=GAF_BETA,
        gt=0.0,
        le=1e6,
        description="β of the gradient activation, a factor of the gradient at a root mean square of 1: the "
        "higher, the more equal large and small values become.",
    )
    robustness: RobustnessName | Robustness = Field(
        default="standard",
        description="`standard`: each step sees the image a little shifted, scaled and turned; or a "
        "`Robustness` of one's own.",
    )
    total_variation: float = Field(
        default=0.01,
        ge=0.0,
        le=1.0,
        description="Weight against roughness, beside the activation's gradient at a root mean square of 1: "
        "0.02 shows, 0.2 costs activation, 1 leaves little of the image.",
    )
    l2: float = Field(
        default=0.05,
        ge=0.0,
        le=10.0,
        description="Weight against distance from gray, measured likewise: 0.1 shows, 1 costs activation, 10 "
        "leaves little of the image.",
    )
    blur_px: float = Field(
        default=0.0,
        ge=0.0,
        le=16.0,
        description="Standard deviation in pixels of a Gaussian blur after each step; `pixels` only.",
    )
    steps: int = Field(default=128, ge=1, le=MAX_STEPS, description="Gradient steps of each image.")
    step_size: float = Field(
        default=0.05,
        gt=0.0,
        le=10.0,
        description="Length of the first step, which falls linearly to 0. `normalized`: root mean square "
        "change of the parameters: for `pixels` of values in [0, 1], before they are kept in it; for "
        "`fourier` of coefficients with a root mean square of 1 where an image is as rich in contrast as "
        "natural ones; for `maco` of phases in radians. `sgd`, `adam`: the learning rate, for a gradient of "
        "root mean square 1.",
    )
    start_noise: float = Field(
        default=START_NOISE,
        ge=0.0,
        le=0.5,
        description="Half-width of the uniform noise around mid-gray that ascent starts from; 0 is plain "
        "gray. `fourier` starts from 1/f noise of the same deviation, `maco` from random phases.",
    )
    size_px: int | None = Field(
        default=None,
        ge=MIN_SIZE_PX,
        le=MAX_SIZE_PX,
        description="Height and width of the image in pixels; default the model's own input size, "
        "which need not be square.",
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seeds the start image and all random views.")

    @model_validator(mode="after")
    def _each_sampler_has_its_own(self) -> Self:
        if self.sampler == "ascent":
            if self.langevin is not None:
                raise ValueError("langevin applies to sampler 'langevin', not 'ascent'")
            return self
        for name in self.model_fields_set & AscentSettings.model_fields.keys() - chains.SHARED:
            value = getattr(self, name)
            if value not in (chains.DEFAULTS.get(name), AscentSettings.model_fields[name].default):
                raise ValueError(f"{name} {value!r} applies to sampler 'ascent', not 'langevin'")
        return self

    @model_validator(mode="after")
    def _blur_is_of_pixels(self) -> Self:
        kind = self._chosen().get("parameterization", self.parameterization)
        if self.blur_px > 0 and kind != "pixels":
            raise ValueError(
                f"blur_px {self.blur_px:g} applies to parameterization 'pixels', not {kind!r}; valid with "
                "preset 'max' or parameterization 'pixels'"
            )
        return self

    @model_validator(mode="after")
    def _whitened_are_pixels(self) -> Self:
        kind = self._chosen().get("parameterization", self.parameterization)
        if self.update == "whitened" and kind != "pixels":
            raise ValueError(
                f"update 'whitened' applies to parameterization 'pixels', not {kind!r}; valid with preset "
                "'max' or parameterization 'pixels'"
            )
        return self

    @model_validator(mode="after")
    def _slope_has_a_ramp(self) -> Self:
        begin, end = self.slope_hold, self.slope_end_at
        if begin >= end:
            raise ValueError(f"slope_hold {begin:g} must be below slope_end_at {end:g}")
        slope = self._chosen().get("slope", self.slope)
        if self.slope_end is not None and slope == "auto":
            raise ValueError(
                f"slope_end {self.slope_end:g} applies to a slope that is a number, not 'auto'; valid: a "
                "slope from 0 to 1 beside it"
            )
        if self.slope_end is None and (begin, end) != (0.0, 1.0):
            raise ValueError(
                f"slope_hold {begin:g} and slope_end_at {end:g} say when the slope moves to slope_end, which "
                "is not given; valid: a slope_end from 0 to 1"
            )
        return self

    @model_validator(mode="after")
    def _starts_have_their_trial(self) -> Self:
        chosen = self._chosen()
        starts, steps = chosen.get("starts", self.starts), chosen.get("steps", self.steps)
        if self.trial_steps is None:
            return self
        if starts == 1:
            raise ValueError(
                f"trial_steps {self.trial_steps} with starts 1: there is nothing to choose from; valid: "
                f"starts 2 to {MAX_STARTS}, or no trial_steps"
            )
        if self.trial_steps >= steps:
            raise ValueError(f"trial_steps {self.trial_steps} must be below steps {steps}")
        return self

    @model_validator(mode="after")
    def _phases_have_no_noise(self) -> Self:
        kind = self._chosen().get("parameterization", self.parameterization)
        if kind == "maco" and self.start_noise != START_NOISE:
            raise ValueError(
                f"start_noise {self.start_noise:g} applies to parameterization 'pixels' or 'fourier', "
                "not 'maco', whose phases start at random"
            )
        return self

    @model_validator(mode="after")
    def _gaf_has_parameters(self) -> Self:
        gaf = self._chosen().get("gaf", self.gaf)
        for name, value, default in (
            ("gaf_alpha", self.gaf_alpha, GAF_ALPHA),
            ("gaf_beta", self.gaf_beta, GAF_BETA),
        ):
            if gaf == "none" and value != default:
                raise ValueError(
                    f"{name} {value:g} has no effect with gaf 'none'; valid with gaf 'atan', 'tanh' or 'log'"
                )
        if self.update in ("normalized", "whitened") and self.gaf_alpha != GAF_ALPHA:
            raise ValueError(
                f"gaf_alpha {self.gaf_alpha:g} has no effect with update {self.update!r}, which brings every "
                "step to its length; valid with update 'sgd' or 'adam'; the length is step_size"
            )
        return self

    def completed(self) -> Self:
        """The same with the preset's values where nothing was given; completing twice changes nothing."""
        chosen = self._chosen()
        return self.model_copy(update=chosen) if chosen else self

    def _chosen(self) -> dict[str, Any]:
        if self.sampler == "langevin":
            return self._chosen_of_chains()
        given = self.model_fields_set
        chosen = {name: value for name, value in PRESETS[self.preset].items() if name not in given}
        if chosen.get("slope") == "auto" and self.slope_end is not None:
            chosen["slope"] = AUTO_SLOPE  # from there to the end that was given
        if "gaf" in given:
            chosen.pop("gaf_beta", None)  # that of the preset's own
        if self._alike and "starts" in chosen:
            chosen["starts"] = 1
        if self.trial_steps is None and chosen.get("starts", self.starts) > 1:
            chosen["trial_steps"] = min(TRIAL_STEPS, chosen.get("steps", self.steps) // TRIAL_PART)
        return chosen

    @property
    def _alike(self) -> bool:
        """Whether no start would be chosen before another, unless it is asked for."""
        return False

    def _chosen_of_chains(self) -> dict[str, Any]:
        """What is not shared has no choice; ``steps`` are those of one sample where they are not given."""
        langevin = (self.langevin or LangevinSettings()).completed()
        open_fields = {"steps": langevin.steps(1), **chains.DEFAULTS, "langevin": langevin}
        kept = (self.model_fields_set & chains.SHARED) - {"langevin"}
        return {name: value for name, value in open_fields.items() if name not in kept}
