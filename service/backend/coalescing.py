"""Coalesces concurrent calls: many requests' Redis commands go out as one pipeline (the DataLoader pattern).

Calls that come while a batch is under way wait for the next one. So a single request waits for nobody, and
the more there are, the less each costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

Item = TypeVar("Item")

#: Most calls of one batch.
MOST = 64
#: Batches at once: while Redis works on one, responses of the other are sent.
AT_ONCE = 2


@dataclass
class _Line(Generic[Item]):
    """The calls that wait in one event loop, and the tasks that run batches for them."""

    waiting: list[tuple[Item, asyncio.Future[Any]]] = field(default_factory=list)
    working: set[asyncio.Task[None]] = field(default_factory=set)


class Coalescer(Generic[Item]):
    """Coalesces calls from any event loop. An instance is called with an item, and returns its outcome.

    ``work`` blocks and returns the outcome of each item of a batch, an exception where it failed; ``call``
    runs it in a thread.
    """

    def __init__(
        self, call: Callable[..., Awaitable[list[Any]]], work: Callable[[Sequence[Item]], list[Any]]
    ) -> None:
        self._call = call
        self._work = work
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line[Item]] = WeakKeyDictionary()

    async def __call__(self, item: Item) -> Any:
        """The outcome of the item. Raises its failure, or that of the whole batch."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = _Line()
        outcome: asyncio.Future[Any] = loop.create_future()
        line.waiting.append((item, outcome))
        if len(line.working) < AT_ONCE:
            line.working.add(loop.create_task(self._go(line)))
        return await outcome

    async def _go(self, line: _Line[Item]) -> None:
        try:
            while line.waiting:
                batch, line.waiting = line.waiting[:MOST], line.waiting[MOST:]
                try:
                    outcomes = await self._call(self._work, [item for item, _ in batch])
                except Exception as error:
                    outcomes = [error] * len(batch)
                for (_, waiting), outcome in zip(batch, outcomes, strict=True):
                    if not waiting.done():  # its caller may have gone
                        _settle(waiting, outcome)
        finally:
            # At once, and not when the task is done: a caller that was just answered may call again.
            line.working -= {asyncio.current_task()}


def _settle(waiting: asyncio.Future[Any], outcome: Any) -> None:
    if isinstance(outcome, Exception):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)


def one_by_one(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """The outcome of each function: its result, or the exception that it raised."""
    return [_outcome(function) for function in functions]


def _outcome(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        return error
