"""Contact sheets of batches: the pictures there are so far, small, in order, each with its unit's number.

A sheet is drawn in a thread, two at a time at most; others wait without one, so that calls to Redis find
theirs. Thumbnails are kept for a while, so that a sheet that is looked at again and again while its batch
runs costs what is new in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from anyio import to_thread
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from proxygrad.protocol.batches import DEFAULT_COLUMNS, GAP_PX, MAX_SIDE_PX, most_columns
from service.images.conversion import ENCODER
from workers.batches.repository import Unit
from workers.cache import LRUCache

#: Pixels of a sheet: in memory three bytes each while it is drawn.
MAX_PIXELS = 8_000_000
#: Units of one sheet: as many objects are read from the store for the first one.
MAX_CELLS = 1024
#: Sheets that are drawn at once; and objects that one reads at once.
DRAWN_AT_ONCE, READ_AT_ONCE = 2, 8
#: Size of the cache of thumbnails, and of that of sheets.
CACHE_BYTES = 32 * 2**20

_LABEL_PX, _FONT_PX = 14, 11
_PAPER, _EMPTY, _INK, _STROKE = (236, 236, 236), (212, 212, 212), (40, 40, 40), (150, 150, 150)
#: Of how sheets look: with another one the same pictures make another sheet.
_STYLE = "1"

SheetFormat = Literal["png", "webp"]


@dataclass(frozen=True)
class SheetLayout:
    """``columns`` cells in a row, whose pictures are ``cell_px`` wide and high."""

    columns: int
    cell_px: int

    @property
    def width_px(self) -> int:
        """Of the sheet."""
        return self.columns * (self.cell_px + GAP_PX) + GAP_PX

    def height_px(self, rows: int) -> int:
        """Of a sheet with so many rows."""
        return rows * (self.cell_px + _LABEL_PX + GAP_PX) + GAP_PX

    @property
    def most_cells(self) -> int:
        """Units of one sheet: whole rows, within all bounds, at least one."""
        row_px = self.cell_px + _LABEL_PX + GAP_PX
        rows = min(MAX_SIDE_PX // row_px, MAX_PIXELS // (self.width_px * row_px), MAX_CELLS // self.columns)
        return max(1, rows) * self.columns

    def corner(self, index: int) -> tuple[int, int]:
        """Left and upper edge of a cell's picture."""
        row, column = divmod(index, self.columns)
        return (
            GAP_PX + column * (self.cell_px + GAP_PX),
            GAP_PX + row * (self.cell_px + _LABEL_PX + GAP_PX),
        )


def layout_of(count: int, columns: int | None, cell_px: int) -> SheetLayout:
    """For so many units: by default as many columns as there is room for, up to `DEFAULT_COLUMNS`."""
    widest = most_columns(cell_px)
    return SheetLayout(min(columns or min(DEFAULT_COLUMNS, max(1, count)), widest), cell_px)


@dataclass(frozen=True)
class Sheet:
    """An encoded sheet; ``whole``: every picture that it should show was in the store."""

    content: bytes
    whole: bool


def entity_tag(units: Sequence[Unit], layout: SheetLayout, form: SheetFormat) -> str:
    """The strong entity tag of the sheet of these units as they stand."""
    stand = [f"{unit.number} {_shown(unit)}" for unit in units]
    text = "\n".join([_STYLE, ENCODER, form, str(layout), *stand])
    return f'"{hashlib.sha256(text.encode()).hexdigest()}"'


def _shown(unit: Unit) -> str:
    """What a cell depends on: the picture, or that there will be none, or none yet."""
    if unit.state == "succeeded":
        return f"{unit.job_id} {unit.best} {unit.activation}"
    return "none" if unit.state in ("failed", "canceled") else "not yet"


class ContactSheets:
    """Draws contact sheets, with a cache of sheets and thumbnails. For one event loop.

    ``image`` reads the picture of a job by its number, as `Jobs.artifact`.
    """

    def __init__(self, image: Callable[[str, int], bytes | None]) -> None:
        self._image = image
        self._drawing = asyncio.Semaphore(DRAWN_AT_ONCE)
        self._sheets: LRUCache[str, Sheet] = LRUCache(CACHE_BYTES, lambda sheet: len(sheet.content))
        self._thumbnails: LRUCache[tuple[str, int, int], Image.Image] = LRUCache(CACHE_BYTES, _size_of)

    async def __call__(
        self, units: Sequence[Unit], layout: SheetLayout, form: SheetFormat, tag: str
    ) -> Sheet:
        """The sheet of these units, of which ``tag`` is the entity tag. Raises `StorageError`."""
        cached = self._sheets.get(tag)
        if cached is not None:
            return cached
        async with self._drawing:
            cached = self._sheets.get(tag)  # another request may have drawn it meanwhile
            if cached is not None:
                return cached
            return await to_thread.run_sync(self.drawn, units, layout, form, tag)

    def drawn(self, units: Sequence[Unit], layout: SheetLayout, form: SheetFormat, tag: str) -> Sheet:
        """The same, drawn now. Blocks. Safe to call from several threads."""
        thumbnails = self._fetched(units, layout.cell_px)
        sheet = draw(units, thumbnails, layout)
        answered = [each for unit, each in zip(units, thumbnails, strict=True) if unit.state == "succeeded"]
        made = Sheet(_encoded(sheet, form), whole=None not in answered)
        if made.whole:
            self._sheets.put(tag, made)
        return made

    def _fetched(self, units: Sequence[Unit], cell_px: int) -> list[Image.Image | None]:
        with ThreadPoolExecutor(READ_AT_ONCE, "atlas") as pool:
            return list(pool.map(lambda unit: self._thumbnail(unit, cell_px), units))

    def _thumbnail(self, unit: Unit, cell_px: int) -> Image.Image | None:
        """The unit's picture as its cell shows it; None where there is none."""
        if unit.state != "succeeded" or unit.job_id is None:
            return None
        key = (unit.job_id, unit.best, cell_px)
        made = self._thumbnails.get(key)
        if made is None:
            png = self._image(unit.job_id, unit.best)
            made = None if png is None else _fitted(png, cell_px)
            if made is not None:
                self._thumbnails.put(key, made)
        return made


def draw(units: Sequence[Unit], thumbnails: Sequence[Image.Image | None], layout: SheetLayout) -> Image.Image:
    """A sheet with a cell for each unit: its picture, or a gray one, crossed out where there will be none."""
    rows = math.ceil(len(units) / layout.columns)
    colored = any(each is not None and each.mode != "L" for each in thumbnails)
    sheet = Image.new(
        "RGB" if colored else "L", (layout.width_px, layout.height_px(rows)), _tone(_PAPER, colored)
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for index, (unit, thumbnail) in enumerate(zip(units, thumbnails, strict=True)):
        left, top = layout.corner(index)
        right, bottom = left + layout.cell_px - 1, top + layout.cell_px - 1
        if thumbnail is None:
            pen.rectangle((left, top, right, bottom), fill=_tone(_EMPTY, colored))
            if unit.state in ("failed", "canceled"):
                pen.line((left, top, right, bottom), fill=_tone(_STROKE, colored))
                pen.line((left, bottom, right, top), fill=_tone(_STROKE, colored))
        else:
            dx, dy = (layout.cell_px - thumbnail.width) // 2, (layout.cell_px - thumbnail.height) // 2
            sheet.paste(thumbnail, (left + dx, top + dy))
        middle = (left + layout.cell_px // 2, bottom + 1 + _LABEL_PX // 2)
        pen.text(middle, str(unit.number), font=font, fill=_tone(_INK, colored), anchor="mm")
    return sheet


def _tone(color: tuple[int, int, int], colored: bool) -> tuple[int, int, int] | int:
    return color if colored else color[0]


def _fitted(png: bytes, cell_px: int) -> Image.Image | None:
    """The picture as large as the cell; a smaller one by whole pixels, so that it shows what it has."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as stored:
            stored.load()
            scale = cell_px / max(stored.size)
            size = (max(1, round(stored.width * scale)), max(1, round(stored.height * scale)))
            how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
            fitted = stored.resize(size, how)
            return fitted if fitted.mode in ("L", "RGB") else fitted.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None  # damaged: as good as gone


def _size_of(picture: Image.Image) -> int:
    return picture.width * picture.height * len(picture.getbands())


def _encoded(sheet: Image.Image, form: SheetFormat) -> bytes:
    buffer = io.BytesIO()
    if form == "webp":
        sheet.save(buffer, format="WEBP", quality=85, method=4)
    else:
        sheet.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()
