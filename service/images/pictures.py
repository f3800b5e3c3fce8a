"""Pictures that callers send, read within the operator's limits in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from anyio import to_thread

from proxygrad.errors import BadPicture, PictureTooLarge
from proxygrad.pictures import DecodedPicture, read_picture, read_references, stack
from proxygrad.protocol.problems import FieldError
from proxygrad.spec.attribution import ReferenceImages
from service.problems import ProblemError

T = TypeVar("T")

#: Pictures that are decoded at once; each may take 8 bytes a pixel. More are not faster where cores are busy
#: (docs/measurements/gateway.md); a second keeps a large one from holding up small ones.
READ_AT_ONCE = 2


class PictureReader:
    """Reads pictures, of which those of one request have at most ``max_pixels`` together.

    Safe to share between event loops.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._slots = asyncio.Semaphore(READ_AT_ONCE)

    async def __call__(
        self, data: bytes, channels: int, size: tuple[int, int] | None, *, exact: bool = False
    ) -> DecodedPicture:
        """As `read_picture`. Raises `ProblemError` with `invalid_image` or `limit_exceeded`."""
        read = partial(read_picture, data, channels, size, exact=exact, max_pixels=self._max_pixels)
        return await self._read(read, "image")

    async def references(
        self, files: Sequence[bytes], picture: DecodedPicture, most: int
    ) -> tuple[bytes, ReferenceImages]:
        """The pictures in ``files``, in the size of ``picture``, as one NPY file, and what a request has.

        Raises `ProblemError`, as above.
        """
        found = list[DecodedPicture]()
        for number, data in enumerate(files):
            left = self._max_pixels - picture.decoded_px - sum(each.decoded_px for each in found)
            read = partial(read_references, data, picture, max_pixels=left, most=most - len(found))
            found += await self._read(read, "reference", number)
        return await to_thread.run_sync(stack, found)

    async def _read(self, read: Callable[[], T], *part: str | int) -> T:
        said = "" if part == ("image",) else f"reference {part[1]}: "
        try:
            async with self._slots:
                return await to_thread.run_sync(read)
        except PictureTooLarge as error:
            detail = (
                f"{said}{error}, as all pictures of a request may have {self._max_pixels} (its operator's "
                "PROXYGRAD_MAX_UPLOAD_PIXELS)"
            )
            field_error = FieldError(location=["body", *part], detail=detail, value=error.pixels)
            field_error.maximum = error.limit
            raise ProblemError("limit_exceeded", detail, [field_error]) from error
        except BadPicture as error:
            detail = f"{said}{error}"
            field_error = FieldError(location=["body", *part], detail=detail)
            raise ProblemError("invalid_image", detail, [field_error]) from error
