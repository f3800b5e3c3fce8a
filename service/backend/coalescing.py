"""What many requests wait for, done for all of them at once: one thread and one round trip to Redis.

What comes while the last lot is under way waits for the next. So a single request waits for nobody, and the
more there are, the less each costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

Item = TypeVar("Item")

#: Items of one lot.
MOST = 64
#: Lots at once: while Redis works for one, answers of the other are sent.
AT_ONCE = 2


@dataclass
class _Line(Generic[Item]):
    """Who waits in one event loop, and the tasks that work for them."""

    waiting: list[tuple[Item, asyncio.Future[Any]]] = field(default_factory=list)
    working: set[asyncio.Task[None]] = field(default_factory=set)


class Coalescer(Generic[Item]):
    """Items of many callers, in whatever event loops they are.

    ``work`` blocks: what came of each, an exception where it failed. ``call`` runs it where it may.
    """

    def __init__(
        self, call: Callable[..., Awaitable[list[Any]]], work: Callable[[Sequence[Item]], list[Any]]
    ) -> None:
        self._call = call
        self._work = work
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line[Item]] = WeakKeyDictionary()

    async def __call__(self, item: Item) -> Any:
        """What came of it; raises what it failed with, or the whole lot."""
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
                lot, line.waiting = line.waiting[:MOST], line.waiting[MOST:]
                try:
                    outcomes = await self._call(self._work, [item for item, _ in lot])
                except Exception as error:
                    outcomes = [error] * len(lot)
                for (_, waiting), outcome in zip(lot, outcomes, strict=True):
                    if not waiting.done():  # who asked may have gone
                        _tell(waiting, outcome)
        finally:
            # At once, and not when the task is done: who was told just now may already ask again.
            line.working -= {asyncio.current_task()}


def _tell(waiting: asyncio.Future[Any], outcome: Any) -> None:
    if isinstance(outcome, Exception):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)


def one_by_one(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """What came of each function, or the exception that it raised."""
    return [_outcome(function) for function in functions]


def _outcome(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        return error
