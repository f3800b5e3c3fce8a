"""The request for an attribution, and its result: which pixels of an image made a unit respond.

The picture itself is no part of a spec: `InputImage` has the digest and the shape of its pixels, as the
network sees them. So the same question about the same picture has the same id. No torch here.
"""

from __future__ import annotations

import math
import reprlib
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from proxygrad.errors import InvalidRequest
from proxygrad.spec import identity
from proxygrad.spec.base import Frozen, Tolerant
from proxygrad.spec.models import ModelInfo, ObjectiveKind
from proxygrad.spec.results import ClassProbability
from proxygrad.spec.settings import MAX_SEED, MAX_SIZE_PX, MIN_SIZE_PX
from proxygrad.spec.visualization import OBJECTIVE_TEXT, Spec, UnitPosition

KIND = "attribution"

AttributionMethod = Literal[
    "deeplift", "integrated_gradients", "gradient_times_input", "guided_backprop", "saliency"
]
AttributionRule = Literal["auto", "rescale", "revealcancel", "gradient"]
ReferenceName = Literal["zeros", "mean", "blurred", "shuffled", "uploaded"]
Gray = Annotated[float, Field(ge=0.0, le=1.0)]
REFERENCES_TEXT = f"{', '.join(get_args(ReferenceName))}, a gray from 0 to 1, or a list of these"

#: Forward and backward passes that a step of a method takes, for the cost; DeepLIFT runs input and reference
#: together, and RevealCancel each function four times.
_PASSES: dict[AttributionMethod, float] = {
    "deeplift": 4,
    "integrated_gradients": 1,
    "gradient_times_input": 1,
    "guided_backprop": 1,
    "saliency": 1,
}
#: The paper found 20 to 300 enough (arXiv 1703.01365, section 5); the cost bounds what a request may take.
MAX_POINTS = 1000
DEFAULT_POINTS = 50
#: In all, whatever they are: shap's documentation takes as many for the background of its DeepExplainer.
MAX_REFERENCES = 100
#: In a list, and parts of a form.
MAX_LISTED = 16
DEFAULT_SHUFFLES = 20


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
    reference: (
        ReferenceName
        | Gray
        | Annotated[tuple[ReferenceName | Gray, ...], Field(min_length=1, max_length=MAX_LISTED)]
    ) = Field(
        default="zeros",
        description="What the picture is compared with. `zeros`, black; `mean`, its own mean color; "
        "`blurred`, itself without detail; `shuffled`, its pixels in random orders; one gray, from 0 to 1; "
        "`uploaded`, the parts `reference` of the form, which is the default where there are any. Or a list "
        f"of these: contributions are the mean over all of them, each picture and each shuffle counting as "
        f"one, {MAX_REFERENCES} at most.",
        examples=["zeros", ["zeros", 0.5, 1]],
    )
    references: int = Field(
        default=DEFAULT_SHUFFLES, ge=1, le=MAX_REFERENCES, description="How many orders `shuffled` takes."
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seed of `shuffled`.")
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

    @field_validator("reference", mode="before")
    @classmethod
    def _references(cls, given: Any) -> Any:
        """One error, where a union has one for each member. A list of one is that one: the id is the same."""
        listed = given if isinstance(given, list | tuple) else [given]
        if not 1 <= len(listed) <= MAX_LISTED:
            raise ValueError(f"{len(listed)} references in a list; valid: 1 to {MAX_LISTED}")
        for each in listed:
            named = isinstance(each, str) and each in get_args(ReferenceName)
            if not named and not (type(each) in (int, float) and 0 <= each <= 1):
                raise ValueError(f"unknown reference {reprlib.repr(each)}; valid: {REFERENCES_TEXT}")
        return listed[0] if len(listed) == 1 else tuple(listed)

    @model_validator(mode="after")
    def _shuffles(self) -> Self:
        if "shuffled" not in self.listed:
            for name, value in (("references", self.references), ("seed", self.seed)):
                if value != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} {value} applies to reference 'shuffled', not {self.reference!r}"
                    )
        return self

    @property
    def listed(self) -> tuple[ReferenceName | float, ...]:
        """The references as a list."""
        return self.reference if isinstance(self.reference, tuple) else (self.reference,)

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


class ReferenceImages(Frozen):
    """The references that were sent, in the size and with the channels of the picture."""

    sha256: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of their pixels as one NPY file, (number, channels, rows, columns).",
    )
    number: int = Field(ge=1, le=MAX_REFERENCES, description="How many they are.")


class AttributionSpec(AttributionTemplate):
    """A request with its pictures, which the store has under the job's id."""

    image: InputImage = Field(description="The picture as the network sees it.")
    reference_images: ReferenceImages | None = Field(
        default=None, description="The references that were sent; `null` without `uploaded`."
    )

    @model_validator(mode="after")
    def _pictures(self) -> Self:
        if ("uploaded" in self.listed) is (self.reference_images is None):
            raise ValueError("reference_images go with reference 'uploaded', and it with them")
        return self

    def checked(self, model: ModelInfo) -> Self:
        """As of the template. Raises `InvalidRequest` for too many references, too."""
        if self.reference_count > MAX_REFERENCES:
            raise InvalidRequest(f"{self.reference_count} references in all; valid: at most {MAX_REFERENCES}")
        return super().checked(model)

    @property
    def reference_count(self) -> int:
        """How many references contributions are averaged over."""
        uploaded = self.reference_images.number if self.reference_images else 0
        counts: dict[object, int] = {"shuffled": self.references, "uploaded": uploaded}
        return sum(counts.get(each, 1) for each in self.listed)

    @property
    def steps(self) -> int:
        """One for each reference, and of integrated gradients one for each point on the way from it."""
        return self.reference_count * (self.points if self.method == "integrated_gradients" else 1)

    def resolve(self, model: ModelInfo) -> Self:
        """`checked`."""
        return self.checked(model)

    def cost(self, model: ModelInfo) -> float:
        """The cost in megapixel steps, as of `Spec.cost`: steps × passes × height × width / 10⁶."""
        passes = self.steps * _PASSES[self.method]
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
    share: float | None = Field(
        default=None,
        description="As a share of the difference of the objective; `null` where it does not differ.",
    )


class SummationDelta(Tolerant):
    """What the contributions miss of summation-to-delta: their sum less the difference of the objective."""

    absolute: float = Field(description="In units of the objective, with its sign.")
    relative: float | None = Field(
        default=None,
        description="As a share of the difference; `null` where the objective does not differ, so that there "
        "is nothing to take a share of.",
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
    reference_value: float = Field(description="The objective on the reference; of several the mean.")
    delta: SummationDelta = Field(description="What the contributions miss of the difference.")
    unruled: tuple[MissedShare, ...] = Field(
        default=(), description="Operations without a rule, which went by their gradient; at most 5."
    )
    shape: tuple[int, int, int] = Field(description="(channels, rows, columns) of the contributions.")
    scale: float = Field(
        description="Magnitude of full color in the heat map, which sums over channels: full red is that and "
        "more, full blue its negative, white 0. 2 % of the sum of all magnitudes lie beyond it."
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
