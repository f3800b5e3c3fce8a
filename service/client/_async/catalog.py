"""What there is to ask about, and what was asked: lists and documents, as coroutines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from proxygrad.protocol.batches import BatchPage, BatchState
from proxygrad.protocol.models import Layer, LayerList, Model, ModelList
from proxygrad.protocol.visualizations import State, VisualizationPage, VisualizationSummary
from service.client import values
from service.client._async import batches as of_batches
from service.client._async import events
from service.client._async.batches import AskedBatch
from service.client._async.pages import paged
from service.client._async.transport import Wire
from service.client.retries import Call

MODELS = "/v1/models"
#: The longest page that the service gives.
PAGE = 200


def visualizations(
    wire: Wire,
    model: str | Sequence[str] | None,
    layer: str | Sequence[str] | None,
    state: State | Sequence[State] | None,
) -> AsyncGenerator[VisualizationSummary, None]:
    """What was asked within a week, the newest first."""
    return paged(
        wire,
        events.BASE,
        _filters(model, layer, state),
        VisualizationPage,
        lambda page: (page.visualizations, page.links),
    )


def _filters(
    model: str | Sequence[str] | None, layer: str | Sequence[str] | None, state: str | Sequence[str] | None
) -> dict[str, list[str] | int]:
    named = values.several("model", model) | values.several("layer", layer) | values.several("state", state)
    return {**named, "limit": PAGE}


async def batches(
    wire: Wire,
    model: str | Sequence[str] | None,
    layer: str | Sequence[str] | None,
    state: BatchState | Sequence[BatchState] | None,
) -> AsyncGenerator[AskedBatch, None]:
    """Those of this key, the newest first."""
    query = _filters(model, layer, state)
    found = paged(wire, of_batches.BASE, query, BatchPage, lambda page: (page.batches, page.links))
    try:
        async for batch in found:
            yield AskedBatch(wire, batch)
    finally:
        await found.aclose()


async def models(wire: Wire) -> list[Model]:
    """All."""
    return (await wire.read(Call("GET", MODELS), ModelList)).models


async def model(wire: Wire, name: str) -> Model:
    """One."""
    return await wire.read(Call("GET", f"{MODELS}/{values.segment('name', name)}"), Model)


async def layers(wire: Wire, name: str) -> list[Layer]:
    """Those of the model of that name."""
    found = await wire.read(Call("GET", f"{MODELS}/{values.segment('model', name)}/layers"), LayerList)
    return found.layers


async def layer(wire: Wire, model_name: str, name: str) -> Layer:
    """One of the model of that name."""
    path = f"{MODELS}/{values.segment('model', model_name)}/layers/{values.segment('name', name)}"
    return await wire.read(Call("GET", path), Layer)
