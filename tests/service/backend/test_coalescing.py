"""What many wait for is done together, and each hears of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.backend import coalescing
from service.backend.coalescing import Coalescer, one_by_one
from workers.broker.pipeline import Operation, RedisCommand, run_async


class Work:
    """Doubles numbers in a thread, one lot at a time, when it is let; remembers the lots."""

    def __init__(self) -> None:
        self.lots: list[list[int]] = []
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self.trouble: Exception | None = None

    def __call__(self, numbers: Sequence[int]) -> list[Any]:
        self.lots.append(list(numbers))
        self.began.set()
        assert self.may_go_on.wait(20)
        if self.trouble is not None:
            raise self.trouble
        return [ValueError(number) if number < 0 else 2 * number for number in numbers]


async def in_a_thread(work: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(work, *args)


def test_what_comes_meanwhile_goes_together() -> None:
    async def ask() -> None:
        work = Work()
        gathered = Coalescer(in_a_thread, work)
        first = asyncio.create_task(gathered(1))
        assert await asyncio.to_thread(work.began.wait, 20)
        others = [asyncio.create_task(gathered(number)) for number in (2, -3, 4)]
        await asyncio.sleep(0)
        work.may_go_on.set()
        outcomes = await asyncio.gather(first, *others, return_exceptions=True)
        assert [outcomes[0], outcomes[1], outcomes[3]] == [2, 4, 8]
        assert isinstance(outcomes[2], ValueError)
        assert work.lots == [[1], [2, -3, 4]]
        assert await gathered(5) == 10

    asyncio.run(ask())


def test_a_lot_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "MOST", 2)

    async def ask() -> None:
        work = Work()
        work.may_go_on.set()
        gathered = Coalescer(in_a_thread, work)
        assert await asyncio.gather(*(gathered(number) for number in range(5))) == [0, 2, 4, 6, 8]
        assert work.lots == [[0, 1], [2, 3], [4]]

    asyncio.run(ask())


def test_who_has_gone_takes_nothing_from_the_others() -> None:
    async def ask() -> None:
        work = Work()
        gathered = Coalescer(in_a_thread, work)
        gone, stays = asyncio.create_task(gathered(1)), asyncio.create_task(gathered(2))
        assert await asyncio.to_thread(work.began.wait, 20)
        gone.cancel()
        late = asyncio.create_task(gathered(3))
        await asyncio.sleep(0)
        work.may_go_on.set()
        assert list(await asyncio.gather(stays, late)) == [4, 6]
        assert gone.cancelled()

    asyncio.run(ask())


def test_a_failure_of_all_is_told_to_each_and_the_next_are_asked_for_anew() -> None:
    async def ask() -> None:
        work = Work()
        work.may_go_on.set()
        work.trouble = OSError("away")
        gathered = Coalescer(in_a_thread, work)
        outcomes = await asyncio.gather(gathered(1), gathered(2), return_exceptions=True)
        assert [str(each) for each in outcomes] == ["away", "away"]
        work.trouble = None
        assert await gathered(3) == 6

    asyncio.run(ask())


def fail() -> None:
    raise ValueError("no")


def test_functions_are_called_one_after_another() -> None:
    first, second, third = one_by_one([lambda: 1, fail, lambda: 3])
    assert (first, str(second), third) == (1, "no", 3)


def test_steps_are_taken_by_their_kind_and_hear_what_failed() -> None:
    async def send(command: RedisCommand[Any]) -> str:
        return "sent"

    async def block(function: Callable[[], Any]) -> Any:
        return function()

    def steps() -> Operation[list[str]]:
        seen = [(yield RedisCommand(lambda client: None, str))]
        try:
            yield fail
        except ValueError as error:
            seen.append(str(error))
        return seen

    assert asyncio.run(run_async(steps(), send, block)) == ["sent", "no"]


def test_each_event_loop_has_its_own_line() -> None:
    def double(numbers: Sequence[int]) -> list[Any]:
        return [2 * number for number in numbers]

    gathered = Coalescer(in_a_thread, double)
    found: list[int] = []

    def ask() -> None:
        async def several() -> list[int]:
            return list(await asyncio.gather(*(gathered(number) for number in range(50))))

        found.extend(asyncio.run(several()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == sorted(2 * number for number in range(50) for _ in range(8))


@pytest.mark.parametrize("at_once", [1, 2])
def test_who_was_told_may_ask_again_at_once(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(coalescing, "AT_ONCE", at_once)

    async def ask() -> None:
        work = Work()
        work.may_go_on.set()
        gathered = Coalescer(in_a_thread, work)

        async def several(start: int) -> list[int]:
            return [await gathered(number) for number in range(start, start + 50)]

        async with asyncio.timeout(60):
            assert await several(0) == list(range(0, 100, 2))
            both = await asyncio.gather(several(100), several(200), several(300))
        assert [each[-1] for each in both] == [298, 498, 698]

    asyncio.run(ask())
