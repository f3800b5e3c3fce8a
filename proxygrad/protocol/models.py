"""Documents about models and their layers."""

from __future__ import annotations

from pydantic import BaseModel, Field

from proxygrad.protocol.problems import Problem
from proxygrad.spec import LayerInfo, ObjectiveKind


class Layer(LayerInfo):
    """One layer, with its valid objectives."""

    objectives: tuple[ObjectiveKind, ...] = Field(description="Valid objectives; the first is the default.")


class LayerList(BaseModel):
    """The layers of one model, in the order of its forward pass."""

    model: str = Field(description="The model's name.")
    layers: list[Layer] = Field(description="Every layer that can be visualized.")


class ModelLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This model.")
    layers: str = Field(description="Its layers.")


class Model(BaseModel):
    """One model that live workers serve, ready or not."""

    name: str = Field(description="Its name in requests.")
    ready: bool = Field(description="Whether its units can be visualized now.")
    problem: Problem | None = Field(description="Why it could not be loaded; `null` if ready.")
    input_shape: tuple[int, int, int] | None = Field(description="(channels, height, width) of its input.")
    classes: tuple[str, ...] | None = Field(description="Names of its logits, if known.")
    digest: str | None = Field(description="SHA-256 over weights, builder and normalization.")
    engine_version: str | None = Field(description="Version of the method.")
    discriminator: str | None = Field(
        default=None,
        description="SHA-256 of the discriminator that regularizes Langevin sampling; `null` without one.",
    )
    notes: tuple[str, ...] = Field(
        default=(), description="What its operator should know, such as class names that are missing."
    )
    layer_count: int = Field(description="Number of layers; 0 unless ready.")
    links: ModelLinks = Field(description="Related resources.")


class ModelList(BaseModel):
    """Every model that live workers serve."""

    models: list[Model] = Field(description="By name, including those that could not be loaded.")
