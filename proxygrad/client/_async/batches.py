"""A batch: its last known state, and what can be done with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Self

from proxygrad.client import parameters, polling
from proxygrad.client._async.pagination import paginate
from proxygrad.client._async.resource import AsyncResource
from proxygrad.client.errors import Canceled, Failed, StillRunning
from proxygrad.client.files import AtlasFormat, atlas_format, save
from proxygrad.client.polling import Deadline
from proxygrad.client.progress import reporting
from proxygrad.client.retries import ApiCall
from proxygrad.protocol import batches
from proxygrad.protocol.addresses import BATCHES
from proxygrad.protocol.batches import BatchCounts, BatchState, BatchUnit, BatchUnitPage, UnitState
from proxygrad.spec import VisualizationTemplate


class AsyncBatch(AsyncResource[batches.Batch]):
    """Many units of one layer with the same settings. Not shared between threads."""

    _base = BATCHES

    @property
    def state(self) -> BatchState:
        """`running`, `succeeded`, `failed` or `canceled`."""
        return self._snapshot.state

    @property
    def template(self) -> VisualizationTemplate:
        """The spec of every unit."""
        return self._snapshot.template

    @property
    def counts(self) -> BatchCounts:
        """The number of units in each state."""
        return self._snapshot.counts

    async def wait(
        self,
        progress: bool | Callable[[batches.Batch], object] = False,
        *,
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Self:
        """Wait until every unit has ended; returns itself. See `AsyncVisualization.wait`.

        Raises `Failed` if a unit has failed.
        """
        deadline = Deadline.after(timeout_s)
        with reporting(progress) as report:
            wait_s = polling.WAIT_S if report is None else polling.WATCH_S
            while True:
                if report is not None:
                    report(self._snapshot)
                if self.ended or deadline.left_s <= 0:
                    break
                await self._read(wait_s, deadline)
        if not self.ended:
            raise StillRunning(f"batch {self.id} is still running after {timeout_s:g} s")
        if check:
            self._raise_for_state()
        return self

    def visualizations(self, state: UnitState | list[UnitState] | None = None) -> AsyncGenerator[BatchUnit]:
        """Its units in their order, or those in the given states, with the ids of their visualizations."""
        params = parameters.filters(state=state)
        path = f"{self._path}/visualizations"
        return paginate(self._transport, path, params, BatchUnitPage, lambda page: page.visualizations)

    async def atlas(
        self,
        *,
        format: AtlasFormat = "png",
        columns: int | None = None,
        width: int | None = None,
        page: int = 0,
    ) -> bytes:
        """A page of the contact sheet, with the images made so far."""
        return (await self._sheet(format, columns, width, page))[0]

    async def save(
        self,
        path: str | Path,
        *,
        columns: int | None = None,
        width: int | None = None,
        page: int | None = None,
    ) -> list[Path]:
        """Write the contact sheet to a .png or .webp file; returns the files.

        Further pages go to ``path`` with -1, -2, … before the suffix. With ``page``, from 0, that page alone
        goes to ``path``. Raises `SaveError`.
        """
        path = Path(path)
        form = atlas_format(path)
        if page is not None:
            return [save(path, await self.atlas(format=form, columns=columns, width=width, page=page))]
        saved = list[Path]()
        for number in range(max(1, self._snapshot.units.total)):
            content, more = await self._sheet(form, columns, width, number)
            target = path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path
            saved.append(save(target, content))
            if not more:
                break
        return saved

    def _raise_for_state(self) -> None:
        errors = {"failed": Failed, "canceled": Canceled}
        if self.state in errors:
            counts, total = self.counts, self._snapshot.units.total
            more = f" with {counts.succeeded} of {total} units succeeded and {counts.failed} failed"
            raise errors[self.state](f"batch {self.id}", self.state, self.problem, more)

    async def _sheet(
        self, form: AtlasFormat, columns: int | None, width: int | None, page: int
    ) -> tuple[bytes, bool]:
        """A page of the contact sheet, and whether another one follows."""
        params = {"columns": columns, "width": width, "page": page or None}
        response = await self._transport.request(ApiCall("GET", f"{self._path}/atlas.{form}", params))
        return response.content, "next" in response.links
