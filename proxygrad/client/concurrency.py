"""The primitives in which the asynchronous and the blocking client differ.

For each `AsyncName` there is a `Name`, which `tools/unasync.py` puts in its place.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import anyio
from anyio.lowlevel import RunVar

from proxygrad.client.errors import ClientClosed

AsyncSleep = Callable[[float], Awaitable[None]]
Sleep = Callable[[float], None]

async_sleep: AsyncSleep = anyio.sleep
sleep: Sleep = time.sleep


def async_shield() -> anyio.CancelScope:
    """A block that a cancellation does not interrupt."""
    return anyio.CancelScope(shield=True)


def shield() -> nullcontext[None]:
    """A plain block: nothing cancels a thread."""
    return nullcontext()


#: An object for each event loop, different from that of every other loop, past ones included.
_LOOP: RunVar[object] = RunVar("proxygrad.client loop")


class LoopGuard:
    """Keeps an asynchronous client to one event loop: its connections belong to the loop that opened them."""

    def __init__(self) -> None:
        self._loop: object = None

    def check(self) -> None:
        """Raises `ClientClosed` in another event loop than that of the first call."""
        try:
            loop = _LOOP.get()
        except LookupError:
            _LOOP.set(loop := object())
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ClientClosed("this AsyncClient belongs to another event loop: make one for each loop")
