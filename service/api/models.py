"""`/v1/models`: the models of live workers, and their layers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from proxygrad.protocol.addresses import MODELS
from proxygrad.protocol.models import Layer, LayerList, Model, ModelList
from proxygrad.spec import LayerKind, Stage
from service.api.dependencies import BackendDep
from service.backend import documents
from service.problems import problem_responses
from service.web.pagination import only

router = APIRouter(prefix=MODELS, tags=["models"])

ModelName = Annotated[str, Path(description="Name of a served model.", examples=["digits"])]
LayerName = Annotated[str, Path(description="Dotted name of a layer.", examples=["layer3"])]

_AWAY = problem_responses("invalid_request", "no_worker", "redis_unavailable")
_UNKNOWN_MODEL = problem_responses("invalid_request", "unknown_model", "no_worker", "redis_unavailable")
_NOT_READY = problem_responses(
    "invalid_request", "unknown_model", "model_unavailable", "no_worker", "redis_unavailable"
)
_UNKNOWN_LAYER = problem_responses(
    *("invalid_request", "unknown_model", "unknown_layer"),
    *("model_unavailable", "no_worker", "redis_unavailable"),
)


@router.get("", summary="List models", responses=_AWAY)
async def list_models(backend: BackendDep) -> ModelList:
    """Every model of every live worker. A model that could not be loaded is listed with its problem."""
    models = await backend.models.all()
    return ModelList(models=[documents.model(models[name]) for name in sorted(models)])


@router.get("/{model}", summary="Read a model", responses=_UNKNOWN_MODEL)
async def read_model(model: ModelName, backend: BackendDep) -> Model:
    """One model, ready or not."""
    return documents.model(await backend.models.find(model))


@router.get("/{model}/layers", summary="List the layers of a model", responses=_NOT_READY)
async def list_layers(
    model: ModelName,
    backend: BackendDep,
    kind: Annotated[list[LayerKind], only("of these kinds")],
    stage: Annotated[list[Stage], only("of these stages")],
) -> LayerList:
    """Its layers: unit counts, shapes, and whether a rectifier comes before or after."""
    info = await backend.models.info(model)
    layers = [
        documents.layer(layer)
        for layer in info.layers
        if (not kind or layer.kind in kind) and (not stage or layer.stage in stage)
    ]
    return LayerList(model=model, layers=layers)


@router.get("/{model}/layers/{layer}", summary="Read a layer", responses=_UNKNOWN_LAYER)
async def read_layer(model: ModelName, layer: LayerName, backend: BackendDep) -> Layer:
    """One layer: its kind, shape, how many units it has and which objectives apply."""
    info = await backend.models.info(model)
    return documents.layer(info.layer(layer))
