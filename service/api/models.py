"""`/v1/models`: what live workers serve, and the layers that can be asked about."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from proxygrad.protocol.addresses import MODELS
from proxygrad.protocol.models import Layer, LayerList, Model, ModelList
from proxygrad.spec import LayerKind, Stage
from service.backend import documents
from service.backend.gateway import GatewayDep
from service.problems import problem_responses

router = APIRouter(prefix=MODELS, tags=["models"])

ModelName = Annotated[str, Path(description="Name of a served model.", examples=["digits"])]
LayerName = Annotated[str, Path(description="Dotted name of a layer.", examples=["layer3"])]

#: Values of one filter.
MAX_CHOICES = 50

_AWAY = problem_responses("invalid_request", "no_worker", "redis_unavailable")
_UNKNOWN_MODEL = problem_responses("invalid_request", "unknown_model", "no_worker", "redis_unavailable")
_NOT_READY = problem_responses(
    "invalid_request", "unknown_model", "model_unavailable", "no_worker", "redis_unavailable"
)
_UNKNOWN_LAYER = problem_responses(
    *("invalid_request", "unknown_model", "unknown_layer"),
    *("model_unavailable", "no_worker", "redis_unavailable"),
)


def _filter(what: str) -> Any:
    return Query(
        default_factory=list, max_length=MAX_CHOICES, description=f"Only of these {what}; repeatable."
    )


@router.get("", summary="List models", responses=_AWAY)
async def list_models(gateway: GatewayDep) -> ModelList:
    """Every model of every live worker; one that could not be loaded is listed with its problem."""
    served = await gateway.served()
    return ModelList(models=[documents.model(served[name]) for name in sorted(served)])


@router.get("/{model}", summary="One model", responses=_UNKNOWN_MODEL)
async def read_model(model: ModelName, gateway: GatewayDep) -> Model:
    """One model, ready or not."""
    return documents.model(await gateway.served_model(model))


@router.get("/{model}/layers", summary="Layers of a model", responses=_NOT_READY)
async def list_layers(
    model: ModelName,
    gateway: GatewayDep,
    kind: Annotated[list[LayerKind], _filter("kinds")],
    stage: Annotated[list[Stage], _filter("stages")],
) -> LayerList:
    """Its layers with their unit counts and shapes, and which of them rectifiers made or take."""
    info = await gateway.model(model)
    layers = [
        documents.layer(layer)
        for layer in info.layers
        if (not kind or layer.kind in kind) and (not stage or layer.stage in stage)
    ]
    return LayerList(model=model, layers=layers)


@router.get("/{model}/layers/{layer}", summary="One layer", responses=_UNKNOWN_LAYER)
async def read_layer(model: ModelName, layer: LayerName, gateway: GatewayDep) -> Layer:
    """One layer: its kind, shape, how many units it has and which objectives apply."""
    info = await gateway.model(model)
    return documents.layer(info.layer(layer))
