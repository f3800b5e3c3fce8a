"""Metadata of a served model: its layers, their units, and the objectives that each layer offers.

A worker publishes it. With it a request is checked and completed without the network at hand
(`proxygrad.spec.visualization.Spec.resolve`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from proxygrad.errors import UnknownLayer
from proxygrad.spec.base import Frozen, Tolerant

#: Name of the network's own output, for networks whose last module does not produce it.
OUTPUT = "output"

LayerKind = Literal["feature_map", "tokens", "vector", "logits"]
Stage = Literal["pre_activation", "post_activation"]

#: Every objective that a request can name. `proxygrad.objectives.units.UNIT_OBJECTIVES` has a class for each.
ObjectiveKind = Literal["channel", "neuron", "top_quarter", "logit", "margin"]

#: What each objective maximizes, for the API reference.
OBJECTIVE_DESCRIPTIONS: dict[ObjectiveKind, str] = {
    "channel": "mean over all positions",
    "neuron": "one position (default the center)",
    "top_quarter": "mean over the highest quarter of all positions",
    "logit": "one output before softmax",
    "margin": "one output before softmax minus the highest of the others",
}

#: The objectives of each kind of layer; the first is the default.
OBJECTIVES: dict[LayerKind, tuple[ObjectiveKind, ...]] = {
    "feature_map": ("channel", "neuron", "top_quarter"),
    "tokens": ("channel", "neuron", "top_quarter"),
    "vector": ("neuron",),
    "logits": ("logit", "neuron", "margin"),
}

#: The objectives that take a position.
POSITIONED: frozenset[ObjectiveKind] = frozenset({"neuron"})


class LayerInfo(Tolerant):
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
    units: int = Field(description="Number of units; valid units are 0 to `units` - 1.")
    activation: str | None = Field(
        default=None,
        description="The rectifier that made this layer's values, or that takes them: `relu`, `gelu`, "
        "`silu`, …; `null` where `stage` is.",
    )
    stage: Stage | None = Field(
        default=None,
        description="`post_activation`: a rectifier made the values. It is these units that can be silent, "
        "and that plain activation maximization may leave at zero. `pre_activation`: a rectifier takes the "
        "values, which have no such floor. `null`: neither, or unknown.",
    )

    @property
    def offered(self) -> tuple[ObjectiveKind, ...]:
        """What it offers, the default first. A single logit has no other to be above."""
        every = OBJECTIVES[self.kind]
        return every if self.units > 1 else tuple(each for each in every if each != "margin")

    @property
    def grid(self) -> tuple[int, ...]:
        """The positions of a unit: height and width of a feature map, the number of tokens, or none."""
        return {"feature_map": self.shape[1:], "tokens": self.shape[:1]}.get(self.kind, ())


class ModelInfo(Frozen):
    """One model as a worker serves it."""

    model_config = ConfigDict(extra="ignore")  # a newer worker may publish more

    name: str
    input_shape: tuple[int, int, int] = Field(description="(channels, height, width) the model was made for.")
    classes: tuple[str, ...] | None = Field(default=None, description="Names of the logits, where known.")
    digest: str = Field(description="SHA-256 over weights, builder and normalization.")
    engine_version: str = Field(description="Version of the method; results of different versions differ.")
    layers: tuple[LayerInfo, ...]
    discriminator: str | None = Field(
        default=None,
        description="SHA-256 of the discriminator that regularizes Langevin sampling; `null` without one.",
    )
    notes: tuple[str, ...] = Field(
        default=(),
        description="What its operator should know: class names or a normalization that are missing, what "
        "was left out of a weights file.",
    )

    @property
    def version(self) -> str:
        """Weights and method in short: what tells two models of one name apart."""
        return f"{self.digest[:16]}.{self.engine_version}"

    def layer(self, name: str) -> LayerInfo:
        """The layer of that name; raises `UnknownLayer` with near names."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise UnknownLayer(name, [layer.name for layer in self.layers], self.name)
