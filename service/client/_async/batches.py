"""A batch as a client sees it: what it stands at, and what can be done, as coroutines."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from proxygrad.protocol.batches import Batch, BatchUnit, BatchUnitPage, UnitState
from service.client import values
from service.client._async.pages import paged
from service.client._async.resource import Resource
from service.client._async.transport import Wire
from service.client.errors import Canceled, Failed, StillRunning
from service.client.files import AtlasFormat, save, sheet_format_of
from service.client.progress import showing
from service.client.retries import Call

BASE = "/v1/batches"

#: Which units: all of the layer, a range, or some.
Units = Literal["all"] | Iterable[int]
#: What `wait` takes: whether to show a bar, or what to call with the batch as it stands.
BatchShown = bool | Callable[[Batch], object]

#: One long poll, while nothing is shown; and how often it is looked at for a bar.
POLL_S, LOOK_S = 30.0, 1.0


class AskedBatch(Resource[Batch]):
    """A batch that the service knows, and the last that was heard of it. Deleted, its answers stay."""

    base = BASE

    @classmethod
    async def ask(cls, wire: Wire, units: Units, template: Mapping[str, Any]) -> AskedBatch:
        """Submit it."""
        call = Call("POST", BASE, json={**values.document(template), "units": values.units(units)})
        return cls(wire, await wire.read(call, Batch))

    @classmethod
    async def get(cls, wire: Wire, batch_id: str) -> AskedBatch:
        """One that was asked before."""
        return cls(
            wire, await wire.read(Call("GET", f"{BASE}/{values.segment('batch_id', batch_id)}"), Batch)
        )

    async def wait(self, progress: BatchShown, timeout_s: float | None, check: bool) -> None:
        """Until every unit has ended. Raises `StillRunning`, and with ``check`` what `check` raises."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with showing(progress) as show:
            longest_s = POLL_S if show is None else LOOK_S
            while True:
                if show is not None:
                    show(self.answer)
                left_s = longest_s if until_s is None else min(longest_s, until_s - time.monotonic())
                if self.answer.ended or left_s <= 0:
                    break
                await self.refresh(left_s, until_s, patient=True)
        if not self.answer.ended:
            raise StillRunning(f"batch {self.answer.id} is still running after {timeout_s:g} s")
        if check:
            self.check()

    def check(self) -> None:
        """Raise `Failed` or `Canceled` where it has ended so; what pictures there are can be had still."""
        counts, total = self.answer.counts, self.answer.units.total
        if self.answer.state in ("failed", "canceled"):
            kind = Failed if self.answer.state == "failed" else Canceled
            more = f" with {counts.succeeded} of {total} units answered and {counts.failed} failed"
            raise kind(f"batch {self.answer.id}", self.answer.state, self.answer.problem, more)

    def visualizations(self, state: UnitState | list[UnitState] | None) -> AsyncGenerator[BatchUnit, None]:
        """Its units."""
        return paged(
            self.wire,
            f"{self.path}/visualizations",
            values.several("state", state),
            BatchUnitPage,
            lambda page: (page.visualizations, page.links),
        )

    async def atlas(self, form: AtlasFormat, columns: int | None, width_px: int | None, page: int) -> bytes:
        """The contact sheet."""
        return (await self._sheet(form, columns, width_px, page))[0]

    async def save(
        self, path: str | Path, columns: int | None, width_px: int | None, page: int | None
    ) -> list[Path]:
        """Write the contact sheet to a file for each page, or that page alone, in the form the name says."""
        place = Path(path)
        form, saved = sheet_format_of(place), list[Path]()
        if page is not None:
            return [save(place, await self.atlas(form, columns, width_px, page))]
        for number in range(max(1, self.answer.units.total)):
            content, more = await self._sheet(form, columns, width_px, number)
            page_place = place.with_name(f"{place.stem}-{number}{place.suffix}") if number else place
            saved.append(save(page_place, content))
            if not more:
                break
        return saved

    async def _sheet(
        self, form: AtlasFormat, columns: int | None, width_px: int | None, page: int
    ) -> tuple[bytes, bool]:
        """One page, and whether there is another one."""
        params = {"columns": columns, "width": width_px, "page": page or None}
        response = await self.wire.answered(Call("GET", f"{self.path}/atlas.{form}", params))
        return response.content, "next" in response.links
