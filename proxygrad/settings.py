"""How an image is made: the settings of an ascent, and the presets that choose several of them at once.

No torch: the gateway checks and completes requests with the same definition that the engine works on.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Preset = Literal["max", "natural", "fast"]
Proxy = Literal["surrogate", "network"]
ParameterizationName = Literal["pixels", "fourier", "maco"]
UpdateName = Literal["normalized", "sgd", "adam"]
GafName = Literal["none", "atan", "tanh", "log"]
RobustnessName = Literal["none", "standard"]

MAX_STEPS = 4096
MIN_SIZE_PX = 8
MAX_SIZE_PX = 1024

#: What each preset changes in the defaults, which are those of `max`. How they were found: docs/method.md.
PRESETS: dict[Preset, dict[str, Any]] = {
    "max": {},
    "natural": {
        "parameterization": "fourier",
        "gaf": "log",
        "robustness": "standard",
        "total_variation": 0.01,
        "l2": 0.05,
        "slope": 0.02,
        "step_size": 0.05,
    },
    "fast": {"parameterization": "fourier", "gaf": "log", "slope": 0.02, "steps": 12, "step_size": 0.25},
}


class Settings(BaseModel):
    """The settings of one ascent. The defaults are those of preset `max`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    preset: Preset = Field(
        default="max",
        description="`max`: the highest activation; `natural`: robust and smooth, what one would print; "
        "`fast`: a preview in a tenth of the time. Changes the defaults of what is not given.",
    )
    proxy: Proxy = Field(
        default="surrogate",
        description="`surrogate`: one forward pass of the network, the slope in its backward pass; "
        "`network`: the gradient of a second network, which has the slope in its forward pass too.",
    )
    slope: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="Slope of every rectifier for negative inputs in the backward pass (ProxyGrad); "
        "0 is plain activation maximization.",
    )
    slope_end: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="The slope at the last step, reached linearly; default: the same throughout.",
    )
    parameterization: ParameterizationName = Field(
        default="pixels",
        description="What the steps move. `pixels`: the values themselves; `fourier`: coefficients scaled by "
        "1/f, in decorrelated colours; `maco`: phases only, under a natural spectrum.",
    )
    update: UpdateName = Field(
        default="normalized", description="`normalized` gradient ascent, `sgd` with momentum, or `adam`."
    )
    gaf: GafName = Field(
        default="none", description="Gradient activation function, which enlarges small values."
    )
    robustness: RobustnessName = Field(
        default="none",
        description="`standard`: each step sees the image a little shifted, scaled and turned.",
    )
    total_variation: float = Field(default=0.0, ge=0.0, le=100.0, description="Weight against roughness.")
    l2: float = Field(default=0.0, ge=0.0, le=100.0, description="Weight against distance from grey.")
    blur_px: float = Field(
        default=0.0,
        ge=0.0,
        le=16.0,
        description="Standard deviation in pixels of a Gaussian blur after each step; `pixels` only.",
    )
    steps: int = Field(default=128, ge=1, le=MAX_STEPS, description="Gradient steps.")
    step_size: float = Field(
        default=0.1,
        gt=0.0,
        le=10.0,
        description="Length of the first step, which falls linearly to 0: root mean square change of a "
        "parameter, for `pixels` of a value between 0 and 1.",
    )
    size_px: int | None = Field(
        default=None,
        ge=MIN_SIZE_PX,
        le=MAX_SIZE_PX,
        description="Height and width of the image in pixels; default the model's own input size, "
        "which need not be square.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seeds the start image and all random views.")

    @model_validator(mode="after")
    def _blur_is_of_pixels(self) -> Self:
        kind = self._chosen().get("parameterization", self.parameterization)
        if self.blur_px > 0 and kind != "pixels":
            raise ValueError(f"blur_px {self.blur_px:g} applies to parameterization 'pixels', not {kind!r}")
        return self

    def completed(self) -> Self:
        """The same with the preset's values where nothing was given; completing twice changes nothing."""
        return self.model_copy(update=self._chosen())

    def _chosen(self) -> dict[str, Any]:
        given = self.model_fields_set
        return {name: value for name, value in PRESETS[self.preset].items() if name not in given}
