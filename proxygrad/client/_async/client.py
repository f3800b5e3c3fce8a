"""The asynchronous client: `AsyncClient`, the way to everything else."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, Unpack

import httpx

from proxygrad.client import parameters
from proxygrad.client._async.attributions import AsyncAttribution
from proxygrad.client._async.batches import AsyncBatch
from proxygrad.client._async.pagination import paginate
from proxygrad.client._async.transport import AsyncTransport
from proxygrad.client._async.visualizations import AsyncVisualization
from proxygrad.client.concurrency import AsyncSleep, async_sleep
from proxygrad.client.config import ClientConfig
from proxygrad.client.errors import InvalidArgument
from proxygrad.client.files import Picture, read
from proxygrad.client.parameters import (
    AttributionParameters,
    TemplateParameters,
    Units,
    VisualizationParameters,
)
from proxygrad.client.polling import long_poll
from proxygrad.client.retries import ApiCall, Upload
from proxygrad.protocol import attributions, batches, visualizations
from proxygrad.protocol.addresses import ATTRIBUTIONS, BATCHES, MODELS, VISUALIZATIONS
from proxygrad.protocol.attributions import AttributionPage, AttributionSummary
from proxygrad.protocol.batches import BatchPage, BatchState
from proxygrad.protocol.jobs import State
from proxygrad.protocol.models import Layer, LayerList, Model, ModelList
from proxygrad.protocol.visualizations import VisualizationPage, VisualizationSummary


class AsyncClient:
    """A client of a ProxyGrad service; a context manager.

    Belongs to the event loop that uses it first: in any other one, every method raises `ClientClosed`.

    ``base_url``, ``key``: by default `PROXYGRAD_URL`, else http://127.0.0.1:8000, and `PROXYGRAD_API_KEY`.
    ``timeout_s``: for one request, beyond the wait that it asks the service for. ``retries``: how often a
    repeatable request is sent again, within ``retry_for_s`` seconds; during a wait only those seconds count,
    from when the service became unreachable. ``sleep``: makes the pauses between them.

    Raises `BadAddress`, and `InvalidArgument` for an impossible key or time. Every method raises
    `ServiceError`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 15.0,
        retries: int = 4,
        retry_for_s: float = 60.0,
        sleep: AsyncSleep = async_sleep,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        config = ClientConfig.of(
            base_url, key, environ, timeout_s=timeout_s, retries=retries, retry_for_s=retry_for_s
        )
        self._transport = AsyncTransport(config, sleep)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @property
    def base_url(self) -> str:
        """The address of the service."""
        return self._transport.address

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def visualize(
        self, *, idempotency_key: str | None = None, **request: Unpack[VisualizationParameters]
    ) -> AsyncVisualization:
        """Request the visualization of a unit; the keywords are the fields of a request.

        The same request is computed once. ``idempotency_key``: repeated with the same key within a day, a job
        that has failed meanwhile is not started again.
        """
        headers = parameters.idempotency_headers(idempotency_key)
        call = ApiCall("POST", VISUALIZATIONS, json=parameters.body(request), headers=headers)
        response = await self._transport.request(call)
        snapshot = self._transport.parse(response, visualizations.Visualization)
        cached = response.status_code == httpx.codes.OK
        return AsyncVisualization(self._transport, snapshot, cached=cached)

    async def get(self, visualization_id: str, wait_s: float = 0.0) -> AsyncVisualization:
        """A visualization by its id; with ``wait_s``, at most 60, once it has ended or after that time."""
        path = f"{VISUALIZATIONS}/{parameters.path_segment('visualization_id', visualization_id)}"
        call = long_poll(path, parameters.seconds("wait_s", wait_s), patient=False)
        return AsyncVisualization(
            self._transport, await self._transport.read(call, visualizations.Visualization)
        )

    def visualizations(
        self,
        *,
        model: str | Sequence[str] | None = None,
        layer: str | Sequence[str] | None = None,
        state: State | Sequence[State] | None = None,
    ) -> AsyncGenerator[VisualizationSummary]:
        """The visualizations of the last week, newest first; each page is read when it is reached."""
        params = {
            **parameters.filters(model=model, layer=layer, state=state),
            "limit": parameters.PAGE_SIZE,
        }
        return paginate(
            self._transport, VISUALIZATIONS, params, VisualizationPage, lambda page: page.visualizations
        )

    async def attribute(
        self,
        image: Picture | AsyncVisualization,
        *,
        number: int | None = None,
        idempotency_key: str | None = None,
        **request: Unpack[AttributionParameters],
    ) -> AsyncAttribution:
        """Ask which pixels of an image made a unit respond; the keywords are the fields of a request.

        ``image``: the bytes of a PNG, JPEG, WebP or NPY file, the path of one, an array, or a visualization,
        of which ``number`` is the image; by default its best. ``reference``: what it is compared with, a
        name, a gray, a file or array as of ``image``, or a list of these, over which contributions are
        averaged. Raises `InvalidArgument` for a file that cannot be read, and for a ``number`` beside one.
        """
        fields, references = parameters.references(request)
        body = parameters.body(fields)
        files = [("reference", each) for each in references]
        if isinstance(image, AsyncVisualization):
            best = 0 if image.snapshot.result is None else image.result.best
            body["image"] = {"visualization": image.id, "number": best if number is None else number}
        elif number is not None:
            raise InvalidArgument(f"number={number!r} is of a visualization's images, and image is none")
        else:
            files.insert(0, ("image", read(image)))
        headers = parameters.idempotency_headers(idempotency_key)
        if files:
            upload = Upload(tuple(files), "attribution", body)
            call = ApiCall("POST", ATTRIBUTIONS, upload=upload, headers=headers)
        else:
            call = ApiCall("POST", ATTRIBUTIONS, json=body, headers=headers)
        response = await self._transport.request(call)
        snapshot = self._transport.parse(response, attributions.Attribution)
        cached = response.status_code == httpx.codes.OK
        return AsyncAttribution(self._transport, snapshot, cached=cached)

    async def get_attribution(self, attribution_id: str, wait_s: float = 0.0) -> AsyncAttribution:
        """An attribution by its id; with ``wait_s``, at most 60, once it has ended or after that time."""
        path = f"{ATTRIBUTIONS}/{parameters.path_segment('attribution_id', attribution_id)}"
        call = long_poll(path, parameters.seconds("wait_s", wait_s), patient=False)
        return AsyncAttribution(self._transport, await self._transport.read(call, attributions.Attribution))

    def attributions(
        self,
        *,
        model: str | Sequence[str] | None = None,
        layer: str | Sequence[str] | None = None,
        state: State | Sequence[State] | None = None,
    ) -> AsyncGenerator[AttributionSummary]:
        """The attributions of the last week, newest first; each page is read when it is reached."""
        params = {
            **parameters.filters(model=model, layer=layer, state=state),
            "limit": parameters.PAGE_SIZE,
        }
        return paginate(
            self._transport, ATTRIBUTIONS, params, AttributionPage, lambda page: page.attributions
        )

    async def batch(self, *, units: Units = "all", **template: Unpack[TemplateParameters]) -> AsyncBatch:
        """Request the visualization of many units of a layer: all, a range, or a list."""
        body = {**parameters.body(template), "units": parameters.unit_selection(units)}
        call = ApiCall("POST", BATCHES, json=body)
        return AsyncBatch(self._transport, await self._transport.read(call, batches.Batch))

    async def get_batch(self, batch_id: str) -> AsyncBatch:
        """A batch by its id."""
        call = ApiCall("GET", f"{BATCHES}/{parameters.path_segment('batch_id', batch_id)}")
        return AsyncBatch(self._transport, await self._transport.read(call, batches.Batch))

    async def batches(
        self,
        *,
        model: str | Sequence[str] | None = None,
        layer: str | Sequence[str] | None = None,
        state: BatchState | Sequence[BatchState] | None = None,
    ) -> AsyncGenerator[AsyncBatch]:
        """The batches of this key, newest first."""
        params = {
            **parameters.filters(model=model, layer=layer, state=state),
            "limit": parameters.PAGE_SIZE,
        }
        pages = paginate(self._transport, BATCHES, params, BatchPage, lambda page: page.batches)
        async with aclosing(pages) as documents:
            async for document in documents:
                yield AsyncBatch(self._transport, document)

    async def models(self) -> list[Model]:
        """Every model of the service, ready or not."""
        return (await self._transport.read(ApiCall("GET", MODELS), ModelList)).models

    async def model(self, name: str) -> Model:
        """One model, ready or not."""
        path = f"{MODELS}/{parameters.path_segment('name', name)}"
        return await self._transport.read(ApiCall("GET", path), Model)

    async def layers(self, model: str) -> list[Layer]:
        """The layers of a model, with their numbers of units."""
        path = f"{MODELS}/{parameters.path_segment('model', model)}/layers"
        return (await self._transport.read(ApiCall("GET", path), LayerList)).layers

    async def layer(self, model: str, name: str) -> Layer:
        """One layer of a model."""
        segments = parameters.path_segment("model", model), parameters.path_segment("name", name)
        path = f"{MODELS}/{segments[0]}/layers/{segments[1]}"
        return await self._transport.read(ApiCall("GET", path), Layer)
