"""An attribution: its last known state, its pictures and its numbers."""

from __future__ import annotations

from pathlib import Path

from proxygrad.client._async.jobs import AsyncJob
from proxygrad.client.files import AtlasFormat, image_format, save
from proxygrad.client.retries import ApiCall
from proxygrad.protocol import attributions
from proxygrad.protocol.addresses import ATTRIBUTIONS
from proxygrad.protocol.attributions import AttributionImage
from proxygrad.spec.attribution import AttributionResult, AttributionSpec


class AsyncAttribution(AsyncJob[attributions.Attribution]):
    """An attribution. Not shared between threads.

    Every method raises `ServiceError`; `proxygrad.client.errors` lists its subclasses.
    """

    _base = ATTRIBUTIONS
    _noun = "attribution"

    @property
    def spec(self) -> AttributionSpec:
        """What is attributed, with every default filled in."""
        return self._snapshot.spec

    @property
    def result(self) -> AttributionResult:
        """What was found.

        Raises `Failed` or `Canceled`, and `LookupError` before it has ended.
        """
        self._raise_for_state()
        if self._snapshot.result is None:
            raise LookupError(f"attribution {self.id} is {self.state}: wait for its result")
        return self._snapshot.result

    async def image(
        self,
        name: AttributionImage = "heatmap",
        *,
        format: AtlasFormat = "png",
        width: int | None = None,
        scale: int | None = None,
    ) -> bytes:
        """The heat map or the overlay, as an image file.

        ``width``: 32 to 512 px, of a smaller one. ``scale``: a whole number of times as large, each pixel
        repeated; up to 512 px.
        """
        call = ApiCall("GET", f"{self._path}/images/{name}.{format}", {"width": width, "scale": scale})
        return (await self._transport.request(call)).content

    async def contributions(self) -> bytes:
        """The contributions as NPY, float32 (channels, rows, columns): ``numpy.load(io.BytesIO(...))``."""
        return (await self._transport.request(ApiCall("GET", f"{self._path}/contributions"))).content

    async def save(self, path: str | Path, name: AttributionImage = "heatmap") -> Path:
        """Write a picture to a .png or .webp file, or the contributions to an .npy file, atomically.

        Raises `SaveError`.
        """
        path = Path(path)
        form = image_format(path)
        if form == "npy":
            return save(path, await self.contributions())
        return save(path, await self.image(name, format=form))
