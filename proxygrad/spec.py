"""What is asked and what came out: plain data that HTTP, queue and engine share.

`Spec` is the only definition of a request. `ModelInfo` is what a process that serves a model says
about it; with it a `Spec` is checked and completed without the network at hand (`Spec.resolve`).
`Result` is what came out. This module needs pydantic and nothing else: the gateway runs without torch.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from proxygrad.errors import ObjectiveMismatch, PositionOutOfRange, UnitOutOfRange, UnknownLayer
from proxygrad.robustness import RobustnessName
from proxygrad.settings import Settings

ObjectiveKind = Literal["channel", "neuron", "logit"]
LayerKind = Literal["feature_map", "tokens", "vector", "logits"]

#: What can be asked of each kind of layer; the first is what a request without `objective` gets.
OBJECTIVES: dict[LayerKind, tuple[ObjectiveKind, ...]] = {
    "feature_map": ("channel", "neuron"),
    "tokens": ("channel", "neuron"),
    "vector": ("neuron",),
    "logits": ("logit", "neuron"),
}


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LayerInfo(_Frozen):
    """One addressable layer: the output of one module at the model's own input size."""

    name: str = Field(
        description="The module's dotted name, as in `named_modules()`; `name@2` is its second call."
    )
    kind: LayerKind = Field(description="What its output is: a feature map, tokens, a vector, or the logits.")
    type: str = Field(description="The module's class name.")
    shape: tuple[int, ...] = Field(
        description="Output shape without the batch, at the model's own input size: (units, rows, columns) "
        "of a feature map, (tokens, units), or (units,)."
    )
    units: int = Field(description="How many units it has; valid units are 0 to `units` - 1.")

    @property
    def grid(self) -> tuple[int, ...]:
        """The positions of a unit: height and width of a feature map, the number of tokens, or none."""
        return {"feature_map": self.shape[1:], "tokens": self.shape[:1]}.get(self.kind, ())


class ModelInfo(_Frozen):
    """One model as a worker serves it."""

    name: str
    input_shape: tuple[int, int, int] = Field(description="(channels, height, width) the model was made for.")
    classes: tuple[str, ...] | None = Field(default=None, description="Names of the logits, where known.")
    digest: str = Field(description="SHA-256 over weights, builder and normalisation.")
    engine_version: str = Field(description="Version of the method; results of different versions differ.")
    layers: tuple[LayerInfo, ...]

    def layer(self, name: str) -> LayerInfo:
        """The layer of that name; raises `UnknownLayer` with near names."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise UnknownLayer(name, [layer.name for layer in self.layers], self.name)


class Template(Settings):
    """A question but for the unit: what is asked of each, and how the images are to be made."""

    robustness: RobustnessName = Field(  # by name alone: `Settings` takes more
        default="none",
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
        description="`channel`: mean over all positions; `neuron`: one position (default the centre); "
        "`logit`: one output before softmax. Default by the layer's kind.",
    )
    position: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=2)] | None = Field(
        default=None,
        description="For `neuron`: row and column in a feature map, default its centre; or the number of a "
        "token, default the first.",
    )


class Spec(Template):
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
        """What answering costs, by which turns in the queue are shared: steps x height x width / 10^6.

        In megapixel steps. The network is left out: which of two jobs of one model costs more is exact, of
        different models a guess. 128 steps of 224 x 224 pixels cost 6.4.
        """
        _, height, width = model.input_shape
        pixels = self.size_px**2 if self.size_px else height * width
        return self.completed().steps * pixels / 1e6

    def identity(self, model: ModelInfo) -> str:
        """The id of the answer: 32 hex digits over the resolved question, the weights and the method.

        The same question about the same weights has the same id, on any machine.
        """
        content = {
            "spec": self.resolve(model).model_dump(mode="json", exclude={"preset"}),  # which is spelt out
            "digest": model.digest,
            "engine_version": model.engine_version,
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class RobustActivation(_Frozen):
    """The unit's activation on shifted copies of the delivered image."""

    mean: float = Field(description="Mean over the copies, in the unit's own scale.")
    std: float = Field(description="Standard deviation over the copies, in the unit's own scale.")


class ClassProbability(_Frozen):
    """One class, as the model sees it in the delivered image."""

    index: int = Field(description="Number of its logit, from 0.")
    name: str | None = Field(description="Its name, where known.")
    probability: float = Field(description="Softmax over all logits, 0 to 1.")


class Result(_Frozen):
    """What came out. Every value is of what was done, none is repeated from the request."""

    spec: Spec = Field(description="The settings as used, with nothing left to default.")
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
    steps_done: int
    width_px: int
    height_px: int
    digest: str = Field(description="Digest of the model that was used.")
    engine_version: str
    device: str = Field(description="Where the steps were computed, e.g. `cpu` or `cuda:0`.")
    dtype: str = Field(description="Number format of the steps: `float32`, `tf32` or `bfloat16`.")
    ran_s: float = Field(
        description="Seconds from the first step to the measured image; of a job that was resumed, those "
        "before its checkpoint included."
    )
    steps_per_s: float
