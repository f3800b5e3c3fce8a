"""The client for programs that wait: `Client`, and what it hands out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from proxygrad.protocol.batches import BatchState, BatchUnit, UnitState
from proxygrad.protocol.models import Layer, Model
from proxygrad.protocol.visualizations import State, VisualizationSummary
from proxygrad.spec import Role
from service.client._async import catalog
from service.client._async.batches import AskedBatch, BatchShown, Units
from service.client._async.events import Event
from service.client._async.standing import KnownBatch, KnownVisualization
from service.client._async.transport import BlockingWire, each, run
from service.client._async.visualizations import Asked, Shown
from service.client.config import Account
from service.client.files import AtlasFormat, ImageFormat
from service.client.questions import Question, TemplateFields
from service.client.retries import Patience


class Visualization(KnownVisualization):
    """One question, where its answer stands, and what can be done about it. Not shared between threads.

    Every method raises `ServiceError`, of which `service.client.errors` has the kinds.
    """

    def wait(self, progress: Shown = False, *, timeout_s: float | None = None, check: bool = True) -> Self:
        """Until it has ended; returns itself.

        ``progress``: True for a bar on standard error, or what to call with `answer` whenever it changes.
        Raises `Failed` or `Canceled`, unless ``check`` is False, and `StillRunning` after ``timeout_s``.
        """
        run(self._asked.wait(progress, timeout_s, check))
        return self

    def events(self) -> Iterator[Event]:
        """What happens, as it happens, until it has ended; gone on with where a connection breaks off."""
        return each(self._asked.events())

    def refresh(self) -> Self:
        """Look how it stands now."""
        run(self._asked.refresh())
        return self

    def image(
        self, number: int | None = None, *, format: ImageFormat = "png", width: int | None = None
    ) -> bytes:
        """A picture, by default the best, whose values are those of `result`.

        ``width``: 32 to 512 px, of a PNG or WebP that shall be smaller.

        NPY is float32 (channels, rows, columns) in 0 to 1: ``numpy.load(io.BytesIO(...))``.
        """
        return run(self._asked.image(number, format, width))

    def images(
        self, *, role: Role | None = None, format: ImageFormat = "png", width: int | None = None
    ) -> list[bytes]:
        """All pictures, by number; ``role`` `proxygrad` or `baseline`: those as asked, or the plain ones."""
        return run(self._asked.images(format, width, role))

    def save(self, path: str | Path, number: int | None = None, *, width: int | None = None) -> Path:
        """Write a picture to a file named .png, .webp or .npy, whole or not at all; default the best.

        Raises `CannotSave`.
        """
        return run(self._asked.save(path, number, width))

    def cancel(self) -> Self:
        """Stop it. Raises `Conflict` where it has succeeded or failed."""
        run(self._asked.cancel())
        return self

    def retry(self) -> Self:
        """Queue it again, if it has failed or was canceled. Raises `Conflict` where it has succeeded."""
        run(self._asked.retry())
        return self

    def delete(self) -> None:
        """Stop it and leave nothing of it, pictures included."""
        run(self._asked.delete())


class Batch(KnownBatch):
    """Many units of one layer, and how far their answers are. Not shared between threads."""

    def wait(
        self, progress: BatchShown = False, *, timeout_s: float | None = None, check: bool = True
    ) -> Self:
        """Until every unit has ended; returns itself. Else as `Visualization.wait`.

        Raises `Failed` where one unit failed.
        """
        run(self._asked.wait(progress, timeout_s, check))
        return self

    def refresh(self) -> Self:
        """Look how it stands now."""
        run(self._asked.refresh())
        return self

    def visualizations(self, state: UnitState | list[UnitState] | None = None) -> Iterator[BatchUnit]:
        """Its units in their order, or those in the given states, with the ids of their visualizations."""
        return each(self._asked.visualizations(state))

    def atlas(
        self,
        *,
        format: AtlasFormat = "png",
        columns: int | None = None,
        width: int | None = None,
        page: int = 0,
    ) -> bytes:
        """The contact sheet of the pictures that there are so far."""
        return run(self._asked.atlas(format, columns, width, page))

    def save(
        self,
        path: str | Path,
        *,
        columns: int | None = None,
        width: int | None = None,
        page: int | None = None,
    ) -> list[Path]:
        """Write the contact sheet to a file named .png or .webp; returns the files.

        Where it has several pages, those after the first to ``path`` with -1, -2, … before its suffix. With
        ``page``, from 0, that one alone to ``path``. Raises `CannotSave`.
        """
        return run(self._asked.save(path, columns, width, page))

    def cancel(self) -> Self:
        """Stop what has not ended."""
        run(self._asked.cancel())
        return self

    def delete(self) -> None:
        """Forget the batch; the answers of its units stay."""
        run(self._asked.delete())


class Client:
    """Talks to a ProxyGrad service. A context manager; may be shared between threads.

    ``base_url``, ``key``: default `PROXYGRAD_URL`, else http://127.0.0.1:8000, and `PROXYGRAD_API_KEY`.
    ``timeout_s``: for one request, beyond the wait that it asks for. ``retries``: how often one that is safe
    to repeat is sent again, within ``retry_for_s`` seconds; of a wait, those alone count, from when the
    service went away. ``sleep``: makes the pauses between them.

    Raises `BadAddress`, and `SettingsError` for what can be no key or time. Every method raises
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
        sleep: Callable[[float], None] = time.sleep,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        account = Account.of(base_url, key, environ)
        self._wire = BlockingWire(account, timeout_s, Patience(retries, retry_for_s), sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @property
    def base_url(self) -> str:
        """The address of the service."""
        return self._wire.address

    def close(self) -> None:
        """Close the connections."""
        self._wire.http.close()

    def visualize(self, *, idempotency_key: str | None = None, **question: Unpack[Question]) -> Visualization:
        """Ask what a unit responds to; the keywords are the fields of a request, all but three with defaults.

        The same question is computed once. ``idempotency_key``: asked again with the same one within a day,
        it is not started anew where it has failed meanwhile.
        """
        return Visualization(run(Asked.ask(self._wire, question, idempotency_key)))

    def get(self, visualization_id: str, wait_s: float = 0.0) -> Visualization:
        """What was asked before; with ``wait_s`` (at most 60), as it stands at its end or after that."""
        return Visualization(run(Asked.get(self._wire, visualization_id, wait_s)))

    def visualizations(
        self,
        *,
        model: str | Sequence[str] | None = None,
        layer: str | Sequence[str] | None = None,
        state: State | Sequence[State] | None = None,
    ) -> Iterator[VisualizationSummary]:
        """What was asked within a week, the newest first, page by page as it is gone through."""
        return each(catalog.visualizations(self._wire, model, layer, state))

    def batch(self, *, units: Units = "all", **template: Unpack[TemplateFields]) -> Batch:
        """Ask the same of many units of a layer: all, a range, or a list."""
        return Batch(run(AskedBatch.ask(self._wire, units, template)))

    def get_batch(self, batch_id: str) -> Batch:
        """A batch that was asked for before."""
        return Batch(run(AskedBatch.get(self._wire, batch_id)))

    def batches(
        self,
        *,
        model: str | Sequence[str] | None = None,
        layer: str | Sequence[str] | None = None,
        state: BatchState | Sequence[BatchState] | None = None,
    ) -> Iterator[Batch]:
        """Those of this key, the newest first."""
        return (Batch(asked) for asked in each(catalog.batches(self._wire, model, layer, state)))

    def models(self) -> list[Model]:
        """Every model that the service knows, ready or not."""
        return run(catalog.models(self._wire))

    def model(self, name: str) -> Model:
        """One model, ready or not."""
        return run(catalog.model(self._wire, name))

    def layers(self, model: str) -> list[Layer]:
        """The layers of a model, with their unit counts."""
        return run(catalog.layers(self._wire, model))

    def layer(self, model: str, name: str) -> Layer:
        """One layer of a model."""
        return run(catalog.layer(self._wire, model, name))
