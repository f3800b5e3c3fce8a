"""Commands for Redis that can be sent alone, or many at once as one message with one answer.

What takes several of them is a generator: it yields a `RedisCommand`, or a function that blocks for another
reason, and is sent what came of it. So the same steps are taken in a thread that waits for each
(`run_blocking`) and in an event loop that sends those of many requests together
(`service.backend.coalescing`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import redis
from redis.client import Pipeline
from redis.exceptions import NoScriptError

T = TypeVar("T")


@dataclass(frozen=True)
class RedisCommand(Generic[T]):
    """One command or script: ``send`` gives it to a client or a pipeline, ``read`` makes sense of the reply.

    Called with a client it is sent alone. Raises `RedisError`, and what ``read`` raises.
    """

    send: Callable[[redis.Redis], Any]
    read: Callable[[Any], T]

    def __call__(self, client: redis.Redis) -> T:
        """What came of it, sent alone."""
        return self.read(self.send(client))


class LuaScript:
    """A script, for a client or a pipeline. There it is answered with `NoScriptError` where Redis does not
    know it yet; `execute_together` sends it alone then, which tells it.
    """

    def __init__(self, client: redis.Redis, text: str) -> None:
        self._script = client.register_script(text)

    def __call__(
        self,
        keys: Sequence[str],
        args: Sequence[str | int | float | bytes],
        client: redis.Redis | None = None,
    ) -> Any:
        """Run it; what it returns, as redis-py has it."""
        if isinstance(client, Pipeline):  # redis-py would ask in another round trip whether it is known
            return client.evalsha(self._script.sha, len(keys), *keys, *args)
        return self._script(keys=keys, args=args, client=client)


#: What a procedure does next.
Step: TypeAlias = RedisCommand[Any] | Callable[[], Any]
Operation: TypeAlias = Generator[Step, Any, T]


def execute_together(client: redis.Redis, commands: Sequence[RedisCommand[Any]]) -> list[Any]:
    """What came of each, in one round trip; an exception in its place where it failed.

    Raises `RedisError` where none of them can be answered for.
    """
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            command.send(pipeline)
        replies = pipeline.execute(raise_on_error=False)
    return [_outcome(client, *pair) for pair in zip(commands, replies, strict=True)]


def _outcome(client: redis.Redis, command: RedisCommand[Any], reply: Any) -> Any:
    try:
        if isinstance(reply, NoScriptError):  # Redis has started anew
            return command(client)
        return reply if isinstance(reply, Exception) else command.read(reply)
    except Exception as error:
        return error


def run_blocking(steps: Operation[T], client: redis.Redis) -> T:
    """Take the steps, each when the one before is done; what they return."""
    try:
        step = next(steps)
        while True:
            try:
                outcome = step(client) if isinstance(step, RedisCommand) else step()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
