"""Redis commands and operations that run in a thread, in an event loop, or many in one pipeline.

A `RedisCommand` is one command or script. An `Operation` takes several: it is a generator that yields each
step, a `RedisCommand` or a function that blocks for another reason, and is sent its result. It does no I/O
itself ("sans I/O"), so the caller chooses how it runs:

- `run_blocking` waits for each step in this thread;
- `run_async` awaits each step in an event loop, where a gateway sends the commands of many requests together;
- `execute_together` sends many commands in one round trip.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import redis
from redis.exceptions import NoScriptError

T = TypeVar("T")


@dataclass(frozen=True)
class RedisCommand(Generic[T]):
    """One command or script: ``send`` gives it to a client or a pipeline, ``read`` decodes the reply.

    Call it with a client to send it alone. Raises `RedisError`, and what ``read`` raises.
    """

    send: Callable[[redis.Redis], Any]
    read: Callable[[Any], T]

    def __call__(self, client: redis.Redis) -> T:
        """The result, sent alone."""
        return self.read(self.send(client))


#: A step of an operation.
Step: TypeAlias = RedisCommand[Any] | Callable[[], Any]
Operation: TypeAlias = Generator[Step, Any, T]


def execute_together(client: redis.Redis, commands: Sequence[RedisCommand[Any]]) -> list[Any]:
    """The results of many commands in one round trip; of one that failed, the exception.

    Raises `RedisError` where none of them has a reply.
    """
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            command.send(pipeline)
        replies = pipeline.execute(raise_on_error=False)
    return [_outcome(client, *pair) for pair in zip(commands, replies, strict=True)]


def _outcome(client: redis.Redis, command: RedisCommand[Any], reply: Any) -> Any:
    try:
        if isinstance(reply, NoScriptError):  # Redis was restarted: sent alone, it is loaded
            return command(client)
        return reply if isinstance(reply, Exception) else command.read(reply)
    except Exception as error:
        return error


def run_blocking(operation: Operation[T], client: redis.Redis) -> T:
    """Run an operation in this thread. Raises what the operation raises."""
    try:
        step = next(operation)
        while True:
            try:
                result = step(client) if isinstance(step, RedisCommand) else step()
            except Exception as error:
                step = operation.throw(error)
            else:
                step = operation.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def run_async(
    operation: Operation[T],
    send: Callable[[RedisCommand[Any]], Awaitable[Any]],
    block: Callable[[Callable[[], Any]], Awaitable[Any]],
) -> T:
    """Run an operation in an event loop: ``send`` awaits a command, ``block`` a function that blocks."""
    try:
        step = next(operation)
        while True:
            try:
                result = await (send(step) if isinstance(step, RedisCommand) else block(step))
            except Exception as error:
                step = operation.throw(error)
            else:
                step = operation.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
