"""A question but for the unit: the settings of an ascent, and what is asked of each unit of a layer."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, model_validator

from proxygrad.spec.models import ObjectiveKind
from proxygrad.spec.robustness import RobustnessName
from proxygrad.spec.settings import MAX_SEED, AscentSettings

#: Most images of one question.
MAX_IMAGES = 16
#: Weight of being different beside the activation: at 1 both count alike.
MAX_DIVERSITY = 10.0
#: Fields that questions did not always have; at their default they are no part of the id.
_LATER = ("images", "diversity", "compare")


class VisualizationTemplate(AscentSettings):
    """A question but for the unit: what is asked of each, and how the images are to be made."""

    robustness: RobustnessName = Field(  # by name alone: `AscentSettings` takes more
        default="standard",
        description="`standard`: each step sees the image a little shifted, scaled and turned.",
    )
    model: str = Field(
        min_length=1, max_length=200, description="Name of a served model.", examples=["digits"]
    )
    layer: str = Field(
        min_length=1, max_length=500, description="Dotted name of a layer.", examples=["layer3"]
    )
    objective: ObjectiveKind | None = Field(
        default=None,
        description="`channel`: mean over all positions; `neuron`: one position (default the center); "
        "`logit`: one output before softmax. Default by the layer's kind.",
    )
    position: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=2)] | None = Field(
        default=None,
        description="For `neuron`: row and column in a feature map, default its center; or the number of a "
        "token, default the first.",
    )
    images: int = Field(
        default=1,
        ge=1,
        le=MAX_IMAGES,
        description="How many images of the unit, with seeds `seed`, `seed` + 1, …",
    )
    diversity: float = Field(
        default=0.0,
        ge=0.0,
        le=MAX_DIVERSITY,
        description="Weight by which the images are led away from each other, beside the activation: 0.5 "
        "shows, 1 counts as much as the activation. Needs `images` of 2 or more.",
    )
    compare: bool = Field(
        default=False,
        description="Also run plain activation maximization in the same batch, from the same starts: one "
        "image for each, with `slope` 0 and all else alike. The result has both.",
    )

    @model_validator(mode="after")
    def _several_to_differ(self) -> Self:
        if self.diversity > 0 and self.images == 1:
            raise ValueError(
                f"diversity {self.diversity:g} with images 1: a single image has none to differ from; "
                f"valid: images 2 to {MAX_IMAGES}, or diversity 0"
            )
        if self.seed + self.images - 1 > MAX_SEED:
            raise ValueError(
                f"seed {self.seed} with images {self.images} goes beyond the largest seed, {MAX_SEED}"
            )
        return self

    @model_validator(mode="after")
    def _something_to_compare(self) -> Self:
        chosen = self.completed()
        if self.compare and chosen.slope == 0 and not chosen.slope_end:
            raise ValueError(
                "compare true with slope 0: that is plain activation maximization already; valid: a slope "
                "above 0, or compare false"
            )
        return self

    @property
    def lanes(self) -> int:
        """How many images are optimized: those asked for, and as many plain ones to compare with."""
        return self.images * (2 if self.compare else 1)

    def baseline(self) -> Self:
        """The same by plain activation maximization."""
        return self.model_copy(update={"slope": 0.0, "slope_end": None})

    def canonical(self) -> dict[str, Any]:
        """What it asks, as JSON has it: without the preset, once that is spelled out (`completed`), and
        without what came later and is not used, so that questions from before keep their id.
        """
        later = {
            name for name in _LATER if getattr(self, name) == VisualizationTemplate.model_fields[name].default
        }
        return self.model_dump(mode="json", exclude={"preset", *later})
