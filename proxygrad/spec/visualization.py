"""The request for a visualization: `Spec`, and `VisualizationTemplate`, which is all of it but the unit.

`Spec` is the only definition of a request; HTTP, queue and engine share it. `Spec.resolve` checks it against
the `ModelInfo` of a model and fills in what depends on that, without the network at hand. No torch here.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, model_validator

from proxygrad.errors import ObjectiveMismatch, PositionMismatch, PositionOutOfRange, UnitOutOfRange
from proxygrad.spec import identity
from proxygrad.spec.langevin import LangevinSettings, check_discriminator
from proxygrad.spec.models import (
    OBJECTIVE_DESCRIPTIONS,
    POSITIONED,
    LayerInfo,
    ModelInfo,
    ObjectiveKind,
)
from proxygrad.spec.robustness import RobustnessName
from proxygrad.spec.settings import MAX_SEED, MAX_STEPS, AscentSettings

#: Most images of one request.
MAX_IMAGES = 16
#: Largest weight of being different beside the activation; at 1 both count alike.
MAX_DIVERSITY = 10.0
OBJECTIVE_TEXT = "; ".join(f"`{name}`: {text}" for name, text in OBJECTIVE_DESCRIPTIONS.items())

UnitPosition = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=2, fail_fast=True)]


class VisualizationTemplate(AscentSettings):
    """A request but for the unit: model, layer and objective, and how the images are to be made."""

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
        description=f"{OBJECTIVE_TEXT}. Default by the layer's kind.",
    )
    position: UnitPosition | None = Field(
        default=None,
        description="For `neuron`: row and column in a feature map, default its center; or the number of a "
        "token, default the first.",
    )
    images: int = Field(
        default=1,
        ge=1,
        le=MAX_IMAGES,
        description="How many images of the unit, with seeds `seed`, `seed` + 1, …; of sampler "
        "`langevin` all samples of all chains.",
    )
    diversity: float = Field(
        default=0.0,
        ge=0.0,
        le=MAX_DIVERSITY,
        description="Weight that pushes the images apart, relative to the activation: 0.5 is visible, 1 "
        "counts as much as the activation. Needs `images` of 2 or more.",
    )
    compare: bool = Field(
        default=False,
        description="Also run plain activation maximization in the same batch from the same starts: one "
        "baseline per image, with `slope` 0 and otherwise the same settings.",
    )

    @model_validator(mode="after")
    def _several_to_differ(self) -> Self:
        if self.diversity > 0 and self.images == 1:
            raise ValueError(
                f"diversity {self.diversity:g} with images 1: a single image has none to differ from; "
                f"valid: images 2 to {MAX_IMAGES}, or diversity 0"
            )
        starts = self._chosen().get("starts", self.starts)
        if self.seed + self.images * starts - 1 > MAX_SEED:
            of_each = f" of {starts} starts" if starts > 1 else ""
            raise ValueError(
                f"seed {self.seed} with images {self.images}{of_each} goes beyond the largest seed, "
                f"{MAX_SEED}"
            )
        if self.diversity > 0 and starts > 1:
            raise ValueError(
                f"starts {starts} with diversity {self.diversity:g}: starts of which one is chosen cannot "
                "be led away from each other; valid: starts 1, or diversity 0"
            )
        return self

    @property
    def _alike(self) -> bool:
        return self.diversity > 0

    @model_validator(mode="after")
    def _chains_have_their_images(self) -> Self:
        if self.sampler != "langevin":
            return self
        for name, value in (("diversity", self.diversity), ("compare", self.compare)):
            if value:
                raise ValueError(f"{name} {value} applies to sampler 'ascent', not 'langevin'")
        chains = (self.langevin and self.langevin.chains) or self.images
        if self.images % chains:
            raise ValueError(
                f"images {self.images} with langevin.chains {chains}: each chain gives as many samples; "
                f"valid: images {chains}, {2 * chains}, …, up to {MAX_IMAGES}"
            )
        steps = (self.langevin or LangevinSettings()).steps(self.images // chains)
        if steps > MAX_STEPS:
            raise ValueError(
                f"langevin.burn_in and {self.images // chains} x langevin.thinning make {steps} steps; "
                f"valid: up to {MAX_STEPS}"
            )
        if "steps" in self.model_fields_set and self.steps != steps:
            raise ValueError(
                f"steps {self.steps} with sampler 'langevin': burn-in and thinning make {steps}; leave "
                "steps out"
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
    def pictures(self) -> int:
        """How many images are delivered: `images`, and as many again where `compare` is set."""
        return self.images * (2 if self.compare else 1)

    @property
    def lanes(self) -> int:
        """How many images are optimized at first: `starts` of each of `pictures`; of chains, how many."""
        if self.sampler == "langevin":
            return (self.langevin and self.langevin.chains) or self.images
        starts: int = self._chosen().get("starts", self.starts)
        return self.pictures * starts

    def _chosen_of_chains(self) -> dict[str, Any]:
        """Of a request, which says how many samples a chain gives."""
        chosen = super()._chosen_of_chains()
        langevin = chosen["langevin"].model_copy(update={"chains": self.lanes})
        return {**chosen, "langevin": langevin, "steps": langevin.steps(self.images // self.lanes)}

    def baseline(self) -> Self:
        """The same by plain activation maximization."""
        plain: dict[str, Any] = {"slope": 0.0, "slope_end": None, "slope_hold": 0.0, "slope_end_at": 1.0}
        return self.model_copy(update=plain)

    def canonical(self) -> dict[str, Any]:
        """The canonical form of a completed request (`proxygrad.spec.identity.canonical`)."""
        return identity.canonical(self)


class Spec(VisualizationTemplate):
    """A request for a visualization of one unit of a model.

    The smallest one names model, layer and unit; everything else has a default. `resolve` fills in what is
    `None` from the model. What changes the picture belongs to the id.
    """

    unit: int = Field(
        ge=0, description="Channel of a feature map, or index in a vector, from 0.", examples=[7]
    )

    def resolve(self, model: ModelInfo) -> Spec:
        """The request checked against `model`, with what depends on the model filled in.

        Raises `UnknownLayer`, `UnitOutOfRange`, `ObjectiveMismatch` or `PositionOutOfRange`.
        A position is checked here only at the model's own size, where the layer's shape is known.
        """
        layer = model.layer(self.layer)
        if self.unit >= layer.units:
            raise UnitOutOfRange(self.unit, layer.units, layer.name)
        choices = layer.offered
        objective = self.objective or choices[0]
        if objective not in choices:
            raise ObjectiveMismatch(objective, layer.name, layer.kind, choices)
        if self.position is not None:
            self._check_position(self.position, objective, layer, model)
        _, height, width = model.input_shape
        size_px = self.size_px or (height if height == width else None)
        resolved = self.completed().model_copy(update={"objective": objective, "size_px": size_px})
        if resolved.langevin is not None and resolved.langevin.discriminator_weight:
            size = (size_px, size_px) if size_px else (height, width)
            check_discriminator(model, resolved.langevin.discriminator_weight, size)
        return resolved

    def _check_position(
        self, position: tuple[int, ...], objective: ObjectiveKind, layer: LayerInfo, model: ModelInfo
    ) -> None:
        if objective not in POSITIONED or not layer.grid:
            takers = [each for each in layer.offered if each in POSITIONED and layer.grid]
            raise PositionMismatch(objective, layer.name, layer.kind, takers)
        own_size = self.size_px in (None, model.input_shape[1])
        outside = own_size and any(at >= side for at, side in zip(position, layer.grid, strict=False))
        if outside or len(position) != len(layer.grid):
            raise PositionOutOfRange(position, layer.grid, layer.name)

    def cost(self, model: ModelInfo) -> float:
        """The cost in megapixel steps, by which the queue shares turns fairly.

        Steps of all lanes x height x width / 10^6: 128 steps of one image of 224 x 224 pixels cost 6.4. The
        network is left out: costs compare exactly between jobs of one model, and roughly between models.
        """
        _, height, width = model.input_shape
        pixels = self.size_px**2 if self.size_px else height * width
        return self.completed().lane_steps * pixels / 1e6

    @property
    def lane_steps(self) -> int:
        """Steps of all lanes of a completed request: `trial_steps` of every start, the rest of the best."""
        if self.sampler == "langevin":
            return self.steps * self.lanes
        trial = self.trial_steps or 0
        return (self.starts * trial + self.steps - trial) * self.pictures

    def identity(self, model: ModelInfo) -> str:
        """The id of the result (`proxygrad.spec.identity.identity`), 32 hex digits."""
        return self.resolve(model).resolved_identity(model)

    def resolved_identity(self, model: ModelInfo) -> str:
        """`identity` of a request that `resolve` returned."""
        return identity.identity(self, model)


def _known_fields(given: object) -> object:
    """A stored request without the fields that only a newer version knows."""
    if not isinstance(given, dict):
        return given
    return {name: value for name, value in given.items() if name in Spec.model_fields}


#: A request as it is read back from where a newer version may have written it.
StoredSpec = Annotated[Spec, BeforeValidator(_known_fields)]
