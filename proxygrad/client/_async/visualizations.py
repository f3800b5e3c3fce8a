"""A visualization: its last known state, and what can be done with it."""

from __future__ import annotations

from pathlib import Path

from proxygrad.client._async.jobs import AsyncJob
from proxygrad.client.files import ImageFormat, image_format, save
from proxygrad.client.retries import ApiCall
from proxygrad.protocol import visualizations
from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.spec import Result, Role, Spec


class AsyncVisualization(AsyncJob[visualizations.Visualization]):
    """A visualization. Not shared between threads.

    Every method raises `ServiceError`; `proxygrad.client.errors` lists its subclasses.
    """

    _base = VISUALIZATIONS
    _noun = "visualization"

    @property
    def spec(self) -> Spec:
        """What is visualized, with every default that depends on the model."""
        return self._snapshot.spec

    @property
    def result(self) -> Result:
        """Measurements of the images.

        Raises `Failed` or `Canceled`, and `LookupError` before it has ended.
        """
        self._raise_for_state()
        if self._snapshot.result is None:
            raise LookupError(f"visualization {self.id} is {self.state}: wait for its result")
        return self._snapshot.result

    async def image(
        self,
        number: int | None = None,
        *,
        format: ImageFormat = "png",
        width: int | None = None,
        scale: int | None = None,
    ) -> bytes:
        """An image file; by default of the best image, whose measurements are those of `result`.

        ``width``: 32 to 512 px, of a smaller PNG or WebP. ``scale``: a whole number of times as large, each
        pixel repeated; up to 512 px.

        NPY is float32 (channels, rows, columns) in 0 to 1: ``numpy.load(io.BytesIO(...))``.
        """
        if number is None:
            number = 0 if self._snapshot.result is None else self._snapshot.result.best
        call = ApiCall("GET", f"{self._path}/images/{number}.{format}", {"width": width, "scale": scale})
        return (await self._transport.request(call)).content

    async def images(
        self, *, role: Role | None = None, format: ImageFormat = "png", width: int | None = None
    ) -> list[bytes]:
        """All image files, by number; ``role``: only the `proxygrad` or the `baseline` images."""
        roles = [image.role for image in self._snapshot.images]
        numbers = [number for number, own in enumerate(roles) if role in (None, own)]
        return [await self.image(number, format=format, width=width) for number in numbers]

    async def save(
        self,
        path: str | Path,
        number: int | None = None,
        *,
        width: int | None = None,
        scale: int | None = None,
    ) -> Path:
        """Write an image to a file, atomically; by default the best. The suffix .png, .webp or .npy decides.

        Raises `SaveError`.
        """
        path = Path(path)
        return save(path, await self.image(number, format=image_format(path), width=width, scale=scale))
