"""What is asked and what came out: plain data that HTTP, queue and engine share.

`Spec` is the only definition of a request. `ModelInfo` is what a process that serves a model says
about it; with it a `Spec` is checked and completed without the network at hand (`Spec.resolve`).
`Result` is what came out. This module needs pydantic and nothing else: the gateway runs without torch.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from proxygrad.errors import ObjectiveMismatch, PositionOutOfRange, UnitOutOfRange
from proxygrad.spec.models import OBJECTIVES, Frozen, LayerInfo, LayerKind, ModelInfo, ObjectiveKind, Stage
from proxygrad.spec.visualization import VisualizationTemplate

__all__ = [
    "OBJECTIVES",
    "BaselineResult",
    "ClassProbability",
    "ImageResult",
    "LayerInfo",
    "LayerKind",
    "Measured",
    "ModelInfo",
    "ObjectiveKind",
    "Result",
    "RobustActivation",
    "Role",
    "Spec",
    "Stage",
    "StoredSpec",
    "VisualizationTemplate",
]

Role = Literal["proxygrad", "baseline"]


class Spec(VisualizationTemplate):
    """The question: what does this unit of this model respond to, and how is the image to be made?

    The smallest one names model, layer and unit; everything else has a default. What is `None` is
    filled in by `resolve` from the model. What changes the picture belongs to the id.
    """

    unit: int = Field(
        ge=0, description="Channel of a feature map, or index in a vector, from 0.", examples=[7]
    )

    def resolve(self, model: ModelInfo) -> Spec:
        """Check this question against `model` and fill in what depends on it.

        Raises `UnknownLayer`, `UnitOutOfRange`, `ObjectiveMismatch` or `PositionOutOfRange`.
        A position is checked here only at the model's own size, where the layer's shape is known.
        """
        layer = model.layer(self.layer)
        if self.unit >= layer.units:
            raise UnitOutOfRange(self.unit, layer.units, layer.name)
        choices = OBJECTIVES[layer.kind]
        objective = self.objective or choices[0]
        if objective not in choices:
            raise ObjectiveMismatch(objective, layer.name, layer.kind, choices)
        if self.position is not None:
            self._check_position(self.position, objective, layer, model)
        _, height, width = model.input_shape
        size_px = self.size_px or (height if height == width else None)
        return self.completed().model_copy(update={"objective": objective, "size_px": size_px})

    def _check_position(
        self, position: tuple[int, ...], objective: ObjectiveKind, layer: LayerInfo, model: ModelInfo
    ) -> None:
        if objective != "neuron" or not layer.grid:
            raise ObjectiveMismatch(
                f"{objective} with a position", layer.name, layer.kind, OBJECTIVES[layer.kind]
            )
        own_size = self.size_px in (None, model.input_shape[1])
        outside = own_size and any(at >= side for at, side in zip(position, layer.grid, strict=False))
        if outside or len(position) != len(layer.grid):
            raise PositionOutOfRange(position, layer.grid, layer.name)

    def cost(self, model: ModelInfo) -> float:
        """What answering costs, by which turns in the queue are shared, in megapixel steps.

        steps x height x width x `lanes` / 10^6: 128 steps of one image of 224 x 224 pixels cost 6.4. The
        network is left out: which of two jobs of one model costs more is exact, of different models a guess.
        """
        _, height, width = model.input_shape
        pixels = self.size_px**2 if self.size_px else height * width
        return self.completed().steps * pixels * self.lanes / 1e6

    def identity(self, model: ModelInfo) -> str:
        """The id of the answer: 32 hex digits over the resolved question, the weights and the method.

        The same question about the same weights has the same id, on any machine.
        """
        return self.resolve(model).resolved_identity(model)

    def resolved_identity(self, model: ModelInfo) -> str:
        """`identity` of a question that `resolve` returned."""
        content = {
            "spec": self.canonical(),
            "digest": model.digest,
            "engine_version": model.engine_version,
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Tolerant(Frozen):
    """What is read back where a newer version may have written it: what it says more is left out.

    The schema stays as exact as that of the others.
    """

    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": False})


class RobustActivation(Tolerant):
    """The unit's activation on shifted copies of the delivered image."""

    mean: float = Field(description="Mean over the copies, in the unit's own scale.")
    std: float = Field(description="Standard deviation over the copies, in the unit's own scale.")


class ClassProbability(Tolerant):
    """One class, as the model sees it in the delivered image."""

    index: int = Field(description="Number of its logit, from 0.")
    name: str | None = Field(default=None, description="Its name, where known.")
    probability: float = Field(description="Softmax over all logits, 0 to 1.")


class Measured(Tolerant):
    """What is measured of one image. The unit's activation is in its own scale throughout."""

    achieved_activation: float = Field(
        description="The unit's activation on the delivered image: the PNG decoded again, the original "
        "float32 network, no transforms."
    )
    start_activation: float = Field(
        description="The unit's activation on the start image, measured in the same way but before rounding "
        "to 8 bits."
    )
    robust_activation: RobustActivation | None = Field(
        default=None,
        description="The unit's activation on 8 copies of the delivered image, each shifted at random by "
        "whole pixels, up to 4 % of the side and mirrored at the border. `null` in records that have none.",
    )
    rank: int | None = Field(
        default=None,
        description="The unit's place among the units of its layer on the delivered image by the same "
        "objective: 1 when it is the most active. `null` in records that have none.",
    )
    rank_of: int | None = Field(default=None, description="How many units the layer has, for `rank`.")
    class_probabilities: tuple[ClassProbability, ...] | None = Field(
        default=None,
        description="The likeliest classes of the delivered image, at most 5, the likeliest first; `null` "
        "where the model does not classify images of this size, and in records that have none.",
    )
    stuck: bool = Field(
        description="True when ascent got nowhere: the image, before rounding to 8 bits, is above the start "
        "activation by no more than float32 rounding; or the unit has gone silent, at or below 0 with a "
        "gradient below 1 % of the largest that was met."
    )
    curve: tuple[float, ...] = Field(
        description="The unit's activation before each step and after the last, as the steps saw it: in "
        "their number format, and of the moved view where there is one; steps_done + 1 values."
    )
    steps_done: int = Field(description="Gradient steps that were made.")


class ImageResult(Measured):
    """One of the images: where it came from, and what is measured of it."""

    role: Role = Field(
        description="`proxygrad`: made as was asked; `baseline`: by plain activation maximization, beside it."
    )
    seed: int = Field(description="Its seed: that of the question, and one more for each further image.")


class BaselineResult(Tolerant):
    """Plain activation maximization from the same starts: the best of its images."""

    image: int = Field(description="Its number among `images`, from 0.")
    achieved_activation: float = Field(description="The unit's activation on that image.")
    start_activation: float = Field(description="The unit's activation on the image it started from.")
    stuck: bool = Field(description="True when plain ascent got nowhere.")


def _known(given: object) -> object:
    """A stored question without the fields that only a newer version knows."""
    if not isinstance(given, dict):
        return given
    return {name: value for name, value in given.items() if name in Spec.model_fields}


#: A question as it is read back from where a newer version may have written it.
StoredSpec = Annotated[Spec, BeforeValidator(_known)]


class Result(Measured):
    """What came out. Every value is of what was done, none is repeated from the request.

    Of several images, what is measured is that of the one with the highest achieved activation, `best`.
    """

    spec: StoredSpec = Field(description="The settings as used, with nothing left to default.")
    best: int = Field(
        default=0,
        description="Number of the image that the values beside this one are of: of those made as was asked, "
        "the one with the highest achieved activation.",
    )
    images: tuple[ImageResult, ...] = Field(
        default=(),
        description="Every image, by number: those asked for in the order of their seeds, then the plain "
        "ones in the same order. Empty where there is but one: that is what stands beside this.",
    )
    baseline: BaselineResult | None = Field(
        default=None, description="Plain activation maximization, when compared; else `null`."
    )
    baseline_activation: float | None = Field(
        default=None,
        description="The highest activation that plain activation maximization achieved, when compared; "
        "else `null`.",
    )
    width_px: int = Field(description="Width of each image in pixels.")
    height_px: int = Field(description="Height of each image in pixels.")
    digest: str = Field(description="Digest of the model that was used.")
    engine_version: str = Field(description="Version of the method that was used.")
    device: str = Field(description="Where the steps were computed, e.g. `cpu` or `cuda:0`.")
    dtype: str = Field(description="Number format of the steps: `float32`, `tf32` or `bfloat16`.")
    ran_s: float = Field(
        description="Seconds from the first step to the measured image; of a job that was resumed, those "
        "before its checkpoint included."
    )
    steps_per_s: float = Field(description="Gradient steps a second, each of all images at once.")

    def of(self, images: tuple[ImageResult, ...]) -> Result:
        """The same of these images: the best of them, and of the plain ones, is found anew."""
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
        """What is measured of one image, also where there is but one."""
        if self.images:
            return self.images[number]
        values = {name: getattr(self, name) for name in Measured.model_fields}
        return ImageResult(role="proxygrad", seed=self.spec.seed, **values)


def _highest(images: tuple[ImageResult, ...], role: Role) -> int | None:
    """The number of the image of that role with the highest activation, the first of equals."""
    numbers = [number for number, image in enumerate(images) if image.role == role]
    return max(numbers, key=lambda number: images[number].achieved_activation, default=None)
