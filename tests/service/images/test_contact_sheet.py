"""Contact sheets of batches: what they show, when they change, how large they may be."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
from anyio import to_thread
from PIL import Image

from proxygrad.protocol.batches import MAX_COLUMNS, MAX_SIDE_PX, UnitState, most_columns
from service.images.contact_sheet import (
    DRAWN_AT_ONCE,
    MAX_CELLS,
    MAX_PIXELS,
    ContactSheets,
    Sheet,
    SheetLayout,
    draw,
    entity_tag,
    layout_of,
)
from service.settings import ServiceSettings
from tests.service.conftest import Http, picture
from tests.support.batch_player import BatchPlayer
from workers.batches.repository import Unit
from workers.jobs.kinds.visualization import image_path
from workers.storage.store import Store

PAPER, EMPTY = 236, 212


def unit(number: int, state: UnitState = "succeeded", activation: float | None = 1.0) -> Unit:
    return Unit(number, f"{number:032x}", state, activation)


def reading(store: Store) -> Callable[[str, int], bytes | None]:
    """Reads pictures that have no record."""
    return lambda job_id, number: store.get(image_path(job_id, number))


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def cell(sheet: Image.Image, placed: SheetLayout, index: int) -> Image.Image:
    left, top = placed.corner(index)
    return sheet.crop((left, top, left + placed.cell_px, top + placed.cell_px))


def test_pictures_stand_in_their_order_each_above_its_number() -> None:
    placed = SheetLayout(3, 32)
    levels = [10, 60, 110, 160]
    pictures = [Image.new("L", (32, 32), level) for level in levels]
    sheet = draw([unit(n) for n in (4, 2, 8, 6)], pictures, placed)
    assert sheet.mode == "L"
    assert sheet.size == (placed.width_px, placed.height_px(2))
    for index, level in enumerate(levels):
        assert cell(sheet, placed, index).getextrema() == (level, level)
        left, top = placed.corner(index)
        label = sheet.crop((left, top + 32, left + 32, top + 46))
        dark = [x for x in range(32) if min(label.crop((x, 0, x + 1, 14)).tobytes()) < 128]
        assert dark
        assert 12 <= sum(dark) / len(dark) <= 19  # in the middle


def test_what_is_not_there_yet_is_gray_and_what_will_not_be_is_crossed_out() -> None:
    placed = SheetLayout(4, 32)
    states: list[UnitState] = ["waiting", "running", "failed", "canceled"]
    sheet = draw([unit(n, state) for n, state in enumerate(states)], [None] * 4, placed)
    assert cell(sheet, placed, 0).getextrema() == cell(sheet, placed, 1).getextrema() == (EMPTY, EMPTY)
    for index in (2, 3):
        crossed = cell(sheet, placed, index)
        assert crossed.getpixel((0, 0)) == crossed.getpixel((16, 16)) == crossed.getpixel((31, 0)) == 150
        assert crossed.getpixel((16, 4)) == EMPTY


def test_one_colored_picture_makes_the_sheet_colored() -> None:
    pictures = [Image.new("L", (32, 32), 10), Image.new("RGB", (32, 32), (200, 10, 10))]
    placed = SheetLayout(2, 32)
    sheet = draw([unit(0), unit(1)], pictures, placed)
    assert sheet.getpixel(placed.corner(1)) == (200, 10, 10)
    assert sheet.getpixel((0, 0)) == (PAPER, PAPER, PAPER)


@pytest.mark.parametrize("cell_px", [32, 64, 100, 256])
@pytest.mark.parametrize("columns", [None, 1, 7, MAX_COLUMNS])
@pytest.mark.parametrize("count", [1, 5, 64, 10_000])
def test_a_sheet_of_any_layout_is_bounded(cell_px: int, columns: int | None, count: int) -> None:
    placed = layout_of(count, columns, cell_px)
    rows = -(-min(count, placed.most_cells) // placed.columns)
    width_px, height_px = placed.width_px, placed.height_px(rows)
    assert placed.columns <= most_columns(cell_px)
    assert placed.most_cells <= MAX_CELLS
    assert width_px <= MAX_SIDE_PX
    assert height_px <= MAX_SIDE_PX + 4
    assert width_px * height_px <= MAX_PIXELS * 1.01


def test_the_tag_changes_with_what_is_seen_and_with_nothing_else() -> None:
    placed = SheetLayout(2, 32)

    def tag(*units: Unit) -> str:
        return entity_tag(units, placed, "png")

    waits = tag(unit(0), unit(1, "waiting"))
    assert waits == tag(unit(0), unit(1, "running")) == tag(unit(0), unit(1, "queued"))
    tags = {
        waits,
        tag(unit(0), unit(1)),
        tag(unit(0), unit(1, "failed")),
        tag(unit(0, activation=2.0), unit(1)),
    }
    tags |= {
        entity_tag([unit(0), unit(1)], placed, "webp"),
        entity_tag([unit(0), unit(1)], SheetLayout(1, 32), "png"),
    }
    assert len(tags) == 6


def test_small_pictures_grow_by_whole_pixels_and_large_ones_shrink(store: Store) -> None:
    checks = Image.new("L", (16, 16))
    checks.putdata([255 * ((x + y) % 2) for y in range(16) for x in range(16)])
    buffer = io.BytesIO()
    checks.save(buffer, format="PNG")
    store.put(image_path(unit(0).job_id or "", 0), buffer.getvalue())
    store.put(image_path(unit(1).job_id or "", 0), picture("RGB", (200, 100)))
    placed = SheetLayout(2, 32)
    sheet = opened(ContactSheets(reading(store)).drawn([unit(0), unit(1)], placed, "png", "tag").content)
    grown = cell(sheet, placed, 0)
    assert {value for _, value in grown.convert("L").getcolors() or []} == {0, 255}
    assert grown.getpixel((0, 0)) == grown.getpixel((1, 1)) != grown.getpixel((2, 0))
    shrunk = cell(sheet, placed, 1)
    assert shrunk.getpixel((16, 0)) == shrunk.getpixel((16, 31)) == (PAPER,) * 3  # 32 x 16, in the middle


def test_a_picture_that_is_gone_or_damaged_leaves_its_cell_empty(store: Store) -> None:
    store.put(image_path(unit(1).job_id or "", 0), b"no picture")
    made = ContactSheets(reading(store)).drawn([unit(0), unit(1)], SheetLayout(2, 32), "png", "tag")
    assert not made.whole
    assert cell(opened(made.content), SheetLayout(2, 32), 0).getextrema() == (EMPTY, EMPTY)


def started(served: Http, worker: BatchPlayer, **changes: Any) -> dict[str, Any]:
    body = {"model": "digits", "layer": "layer3", "units": {"stop": 20}} | changes
    document: dict[str, Any] = served("POST", "/v1/batches", json=body).json()
    worker.expand()
    return document


def test_the_sheet_grows_with_the_batch_and_is_kept_when_that_has_succeeded(
    served: Http, worker: BatchPlayer
) -> None:
    batch = started(served, worker)
    path = batch["links"]["atlas"]
    empty = served.get(path)
    assert empty.headers["Content-Type"] == "image/png"
    assert empty.headers["Cache-Control"] == "public, no-cache"
    placed = layout_of(20, None, 64)
    assert opened(empty.content).size == (placed.width_px, placed.height_px(2))
    tag = empty.headers["ETag"]
    assert not tag.startswith("W/")
    assert served.get(path, headers={"If-None-Match": tag}).status_code == 304
    worker.end(batch["id"], "succeeded", 3, 4)
    grown = served.get(path, headers={"If-None-Match": tag})
    assert (grown.status_code, grown.headers["ETag"] != tag) == (200, True)
    shown = opened(grown.content)
    lit = [index for index in range(20) if cell(shown, placed, index).getextrema() != (EMPTY, EMPTY)]
    assert lit == [3, 4]
    worker.end(batch["id"], "succeeded")
    done = served.get(path)
    assert done.headers["Cache-Control"] == "public, max-age=31536000"
    assert served.get(path, headers={"If-None-Match": done.headers["ETag"]}).status_code == 304
    assert served.get(path).content == done.content


def test_the_form_is_chosen_by_suffix_or_accept(served: Http, worker: BatchPlayer) -> None:
    path = started(served, worker)["links"]["atlas"]
    by_suffix = served.get(f"{path}.webp", headers={"Accept": "image/png"})
    assert by_suffix.headers["Content-Type"] == "image/webp"
    assert "Vary" not in by_suffix.headers
    by_accept = served.get(path, headers={"Accept": "image/webp"})
    assert (by_accept.content, by_accept.headers["Vary"]) == (by_suffix.content, "Accept")
    assert opened(by_accept.content).format == "WEBP"
    assert served.get(f"{path}.png").headers["Content-Type"] == "image/png"
    assert served.get(path, headers={"Accept": "application/x-npy"}).json()["code"] == "not_acceptable"
    assert served.get(f"{path}.npy").json()["code"] == "not_acceptable"


def test_columns_and_width_are_chosen_within_bounds(served: Http, worker: BatchPlayer) -> None:
    path = started(served, worker)["links"]["atlas"]
    placed = SheetLayout(4, 96)
    sheet = served.get(path, params={"columns": 4, "width": 96})
    assert opened(sheet.content).size == (placed.width_px, placed.height_px(5))
    for params in ({"columns": 0}, {"columns": 129}, {"width": 31}, {"width": 257}, {"page": -1}):
        assert served.get(path, params=params).json()["code"] == "invalid_request"
    wide = served.get(path, params={"columns": 100, "width": 256}).json()
    assert "100 columns of 256 px are too wide; valid with width 256: 1 to 31" in wide["detail"]


def test_a_batch_that_does_not_fit_has_pages(served: Http, worker: BatchPlayer) -> None:
    batch = started(served, worker, units="all")
    path = batch["links"]["atlas"]
    placed = layout_of(64, 1, 256)
    assert placed.most_cells == 29
    first = served.get(path, params={"columns": 1, "width": 256})
    assert first.headers["Link"] == f'<{path}?columns=1&width=256&page=1>; rel="next"'
    last = served.get(f"{path}?columns=1&width=256&page=2")
    assert "Link" not in last.headers
    assert opened(last.content).height == placed.height_px(64 - 2 * 29)
    beyond = served.get(path, params={"columns": 1, "width": 256, "page": 3}).json()
    assert "there is no page 3 of this sheet; valid: 0 to 2" in beyond["detail"]


def test_a_sheet_that_lacks_a_picture_is_not_kept(
    served: Http, worker: BatchPlayer, settings: ServiceSettings
) -> None:
    batch = started(served, worker, units=[1, 2])
    worker.end(batch["id"], "succeeded")
    gone = served.get(batch["links"]["visualizations"]).json()["visualizations"][0]["id"]
    Store.from_url(settings.store_url).delete(image_path(gone, 0))
    sheet = served.get(batch["links"]["atlas"])
    assert sheet.status_code == 200
    assert "ETag" not in sheet.headers
    assert sheet.headers["Cache-Control"] == "no-store"


def test_another_job_s_picture_is_not_shown(
    served: Http, worker: BatchPlayer, settings: ServiceSettings
) -> None:
    batch = started(served, worker, units=[1, 2])
    worker.end(batch["id"], "succeeded")
    found = served.get(batch["links"]["visualizations"]).json()["visualizations"]
    wrong = settings.home / "artifacts" / found[0]["id"] / "0.png"
    wrong.write_bytes(picture("RGB"))
    sheet = served.get(batch["links"]["atlas"], params={"columns": 2})
    placed = SheetLayout(2, 64)
    assert (sheet.status_code, sheet.headers["Cache-Control"]) == (200, "no-store")
    assert cell(opened(sheet.content), placed, 0).getextrema() == (EMPTY, EMPTY)
    assert cell(opened(sheet.content), placed, 1).getextrema() != (EMPTY, EMPTY)
    assert not wrong.exists()


class SlowSheets(ContactSheets):
    """Draws when it may; says what it was asked to draw."""

    def __init__(self, store: Store) -> None:
        super().__init__(reading(store))
        self.begun = threading.Semaphore(0)
        self.may = threading.Event()
        self.asked: list[str] = []

    def drawn(self, units: Any, placed: Any, form: Any, tag: str) -> Sheet:
        self.asked.append(tag)
        self.begun.release()
        assert self.may.wait(60)
        sheet = Sheet(tag.encode(), whole=True)
        self._sheets.put(tag, sheet)
        return sheet


def test_sheets_that_wait_leave_threads_to_others_and_are_not_drawn_again(settings: ServiceSettings) -> None:
    sheets = SlowSheets(Store.from_url(settings.store_url))

    async def ask_for_many() -> list[Sheet]:
        tags = [str(number % 20) for number in range(100)]
        tasks = [asyncio.create_task(sheets([], SheetLayout(1, 32), "png", tag)) for tag in tags]
        for _ in range(DRAWN_AT_ONCE):
            await to_thread.run_sync(sheets.begun.acquire)
        async with asyncio.timeout(30):
            await to_thread.run_sync(len, "there is a thread for this")
        assert len(sheets.asked) == DRAWN_AT_ONCE
        sheets.may.set()
        return await asyncio.gather(*tasks)

    made = asyncio.run(ask_for_many())
    assert [sheet.content.decode() for sheet in made] == [str(number % 20) for number in range(100)]
    assert set(sheets.asked) == {str(number) for number in range(20)}
    assert max(sheets.asked.count(tag) for tag in sheets.asked) <= DRAWN_AT_ONCE
