"""The request for an attribution, and its result: which pixels of an image made a unit respond.

The picture itself is no part of a spec: `InputImage` has the digest and the shape of its pixels, as the
network sees them. So the same question about the same picture has the same id. No torch here.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from proxygrad.errors import InvalidRequest
from proxygrad.spec import identity
from proxygrad.spec.base import Frozen, Tolerant
from proxygrad.spec.models import ModelInfo, ObjectiveKind
from proxygrad.spec.results import ClassProbability
from proxygrad.spec.settings import MAX_SIZE_PX, MIN_SIZE_PX
from proxygrad.spec.visualization import OBJECTIVE_TEXT, Spec, UnitPosition

KIND = "attribution"

AttributionMethod = Literal[
    "deeplift", "integrated_gradients", "gradient_times_input", "guided_backprop", "saliency"
]
AttributionRule = Literal["auto", "rescale", "revealcancel", "gradient"]
ReferenceImage = Literal["zeros", "mean", "blurred"]

#: Forward and backward passes that a method takes, for the cost; DeepLIFT runs input and reference together,
#: and RevealCancel each function four times.
_PASSES: dict[AttributionMethod, float] = {
    "deeplift": 4,
    "gradient_times_input": 1,
    "guided_backprop": 1,
    "saliency": 1,
}
#: Points run one after another, and nothing else meanwhile: a worker that is still for 60 s counts as stuck.
MAX_POINTS = 100
DEFAULT_POINTS = 50


class AttributionTemplate(Frozen):
    """A request but for the picture: unit, method and reference."""

    model: str = Field(
        min_length=1, max_length=200, description="Name of a served model.", examples=["digits"]
    )
    layer: str = Field(min_length=1, max_length=500, description="Dotted name of a layer.", examples=["fc"])
    unit: int = Field(
        ge=0, description="Channel of a feature map, or index in a vector, from 0.", examples=[7]
    )
    objective: ObjectiveKind | None = Field(
        default=None, description=f"{OBJECTIVE_TEXT}. Default by the layer's kind."
    )
    position: UnitPosition | None = Field(
        default=None,
        description="For `neuron`: row and column in a feature map, default its center; or the number of a "
        "token, default the first.",
    )
    size_px: int | None = Field(
        default=None,
        ge=MIN_SIZE_PX,
        le=MAX_SIZE_PX,
        description="Height and width at which the network sees the picture. Default: the model's own input "
        "size, and for a visualization the size that it was made at. An NPY array is taken as it is.",
    )
    method: AttributionMethod = Field(
        default="deeplift",
        description="`deeplift`; or a gradient method to compare with: `integrated_gradients`, "
        "`gradient_times_input`, `guided_backprop`, `saliency`.",
    )
    rule: AttributionRule = Field(
        default="auto",
        description="DeepLIFT's rule for activations. `auto`: Rescale behind convolutions, RevealCancel "
        "behind dense layers; or one of them for all: `rescale`, `revealcancel`, `gradient`.",
    )
    reference: ReferenceImage | Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default="zeros",
        description="What the picture is compared with: `zeros`, black; `mean`, its own mean color; "
        "`blurred`, itself without detail; or one gray, from 0 to 1.",
    )
    at: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="A layer whose activation is attributed to, in place of the pixels. A feature map; "
        "`deeplift` alone.",
    )
    points: int = Field(
        default=DEFAULT_POINTS,
        ge=1,
        le=MAX_POINTS,
        description="Points on the path of `integrated_gradients`.",
    )
    normalize_logits: bool = Field(
        default=False, description="Take off the mean over all units of the layer, which softmax ignores."
    )

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> Self:
        if self.method != "deeplift":
            if self.at is not None:
                raise ValueError(f"at {self.at!r} applies to method 'deeplift', not {self.method!r}")
            if self.rule != "auto":
                raise ValueError(f"rule {self.rule!r} applies to method 'deeplift', not {self.method!r}")
        if self.method != "integrated_gradients" and self.points != DEFAULT_POINTS:
            raise ValueError(
                f"points {self.points} applies to method 'integrated_gradients', not {self.method!r}"
            )
        return self

    def checked(self, model: ModelInfo) -> Self:
        """The request checked against ``model``, with its objective filled in.

        Raises what `Spec.resolve` raises, and `InvalidRequest` where ``at`` is no feature map.
        """
        resolved = self.unit_spec.resolve(model)
        if self.at is not None and (layer := model.layer(self.at)).kind != "feature_map":
            raise InvalidRequest(f"at {self.at!r} is a {layer.kind}; valid: a feature map")
        return self.model_copy(update={"objective": resolved.objective})

    @property
    def unit_spec(self) -> Spec:
        """The unit in question, as a request for a visualization names it."""
        return Spec(
            model=self.model,
            layer=self.layer,
            unit=self.unit,
            objective=self.objective,
            position=self.position,
            size_px=self.size_px,
        )


class InputImage(Frozen):
    """The picture as the network sees it, before normalization."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of its pixels as an NPY file.")
    channels: int = Field(ge=1, description="Channels: 1 is gray, 3 RGB.")
    height_px: int = Field(ge=1, description="Height in pixels.")
    width_px: int = Field(ge=1, description="Width in pixels.")


class AttributionSpec(AttributionTemplate):
    """A request with its picture, which the store has under the job's id."""

    image: InputImage = Field(description="The picture as the network sees it.")

    @property
    def steps(self) -> int:
        """One: it is computed at once."""
        return 1

    def resolve(self, model: ModelInfo) -> Self:
        """`checked`."""
        return self.checked(model)

    def cost(self, model: ModelInfo) -> float:
        """The cost in megapixel steps, as of `Spec.cost`: passes × height × width / 10⁶."""
        passes = float(self.points) if self.method == "integrated_gradients" else _PASSES[self.method]
        return passes * self.image.height_px * self.image.width_px / 1e6

    def identity(self, model: ModelInfo) -> str:
        """The id of the result, 32 hex digits."""
        return self.resolve(model).resolved_identity(model)

    def resolved_identity(self, model: ModelInfo) -> str:
        """`identity` of a request that `resolve` returned."""
        return identity.identity(self, model, kind=KIND)


def _known_fields(given: object) -> object:
    """A stored request without the fields that only a newer version knows."""
    if not isinstance(given, dict):
        return given
    return {name: value for name, value in given.items() if name in AttributionSpec.model_fields}


#: A request as it is read back from where a newer version may have written it.
StoredAttributionSpec = Annotated[AttributionSpec, BeforeValidator(_known_fields)]


class MissedShare(Tolerant):
    """What one operation misses of summation-to-delta."""

    operation: str = Field(description="The operation, as torch names it.")
    layer: str = Field(description="The layer that ran it; empty for the network itself.")
    missed: float = Field(description="What it misses, in units of the objective.")
    share: float = Field(description="As a share of the difference of the objective.")


class SummationDelta(Tolerant):
    """What the contributions miss of summation-to-delta: their sum less the difference of the objective."""

    absolute: float = Field(description="In units of the objective, with its sign.")
    relative: float | None = Field(
        default=None, description="As a share of the difference; `null` where there is no difference."
    )
    operations: tuple[MissedShare, ...] = Field(
        default=(), description="The operations that miss most, the largest first, at most 5."
    )


class LogitValue(Tolerant):
    """One of the model's highest logits on the picture."""

    index: int = Field(description="Index of the logit, from 0.")
    name: str | None = Field(default=None, description="Name of its class, if known.")
    value: float = Field(description="Its value.")


class AttributionResult(Tolerant):
    """The result of an attribution."""

    spec: StoredAttributionSpec = Field(description="The request as it was computed.")
    value: float = Field(description="The objective on the picture.")
    reference_value: float = Field(description="The objective on the reference.")
    delta: SummationDelta = Field(description="What the contributions miss of the difference.")
    unruled: tuple[MissedShare, ...] = Field(
        default=(), description="Operations without a rule, which went by their gradient; at most 5."
    )
    shape: tuple[int, int, int] = Field(description="(channels, rows, columns) of the contributions.")
    scale: float = Field(
        description="Largest magnitude in the heat map, which sums over channels: full red is that, full "
        "blue its negative, white 0."
    )
    logits: tuple[LogitValue, ...] = Field(
        default=(), description="The highest logits of the picture, at most 5; empty without logits."
    )
    class_probabilities: tuple[ClassProbability, ...] | None = Field(
        default=None, description="The likeliest classes of the picture, at most 5; `null` without classes."
    )
    notes: tuple[str, ...] = Field(default=(), description="What to know of the model's gradients.")
    digest: str = Field(description="Digest of the model.")
    engine_version: str = Field(description="Version of the engine.")
    device: str = Field(description="Where it was computed, e.g. `cpu` or `cuda:0`.")
    dtype: str = Field(description="Number format: `float32`.")
    ran_s: float = Field(description="Seconds of computation.")


def finite_or_none(value: float) -> float | None:
    """The value where it is finite: JSON has no other numbers."""
    return value if math.isfinite(value) else None
