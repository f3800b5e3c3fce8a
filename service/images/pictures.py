"""Pictures that callers send, read within the operator's limits in a few threads."""

from __future__ import annotations

import asyncio
from functools import partial

from anyio import to_thread

from proxygrad.errors import BadPicture, PictureTooLarge
from proxygrad.pictures import DecodedPicture, read_picture
from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError

#: Pictures that are decoded at once; each may take 8 bytes a pixel.
READ_AT_ONCE = 2


class PictureReader:
    """Reads pictures of at most ``max_pixels``. Safe to share between event loops."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._slots = asyncio.Semaphore(READ_AT_ONCE)

    async def __call__(
        self, data: bytes, channels: int, size: tuple[int, int] | None, *, exact: bool = False
    ) -> DecodedPicture:
        """As `read_picture`. Raises `ProblemError` with `invalid_image` or `limit_exceeded`."""
        read = partial(read_picture, data, channels, size, exact=exact, max_pixels=self._max_pixels)
        try:
            async with self._slots:
                return await to_thread.run_sync(read)
        except PictureTooLarge as error:
            detail = f"{error} (its operator's PROXYGRAD_MAX_UPLOAD_PIXELS)"
            field_error = FieldError(location=["body", "image"], detail=detail, value=error.pixels)
            field_error.maximum = error.limit
            raise ProblemError("limit_exceeded", detail, [field_error]) from error
        except BadPicture as error:
            field_error = FieldError(location=["body", "image"], detail=str(error))
            raise ProblemError("invalid_image", str(error), [field_error]) from error
