"""Lua scripts: loaded from ``workers/lua/`` and ``service/lua/``, and run in Redis, each as one atomic step.

A script starts with ``#!lua``, perhaps with flags. A line ``-- @include lib/NAME`` stands for the file
``workers/lua/lib/NAME.lua``, included once, before what includes it. ``KEY``, ``RQ`` and ``LIMIT`` are tables
of the constants of `workers.broker.keys`, `workers.broker.rq_names` and `workers.broker.limits`: ``KEY.JOBS``
is `keys.JOBS_KEY`.

Scripts name their keys themselves instead of taking ``KEYS``: RQ does not work on a Redis cluster either.
They need Redis 7 or any Valkey for their flags. A script that only moves or ends what is there has the flag
``allow-oom`` and runs in a full Redis too; one that brings more is refused by Redis before its first line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any, Literal, TypeVar

import redis
from redis.client import Pipeline

from workers.broker import keys, limits, rq_names
from workers.broker.pipeline import RedisCommand

T = TypeVar("T")

Flags = Literal["allow-oom", "no-writes"]
#: How a reply is read: ``text`` is a string, ``pairs`` a dictionary where the script returns a flat list.
Decode = Literal["text", "pairs"]

_TABLES: Mapping[str, ModuleType] = {"KEY": keys, "RQ": rq_names, "LIMIT": limits}
_INCLUDE = re.compile(r"^-- @include (\S+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*(?:--.*)?\n", re.MULTILINE)  # or an empty line
_CONSTANT = re.compile(r"\b(KEY|RQ|LIMIT)\.([A-Z_]+)\b")


def pairs(flat: Sequence[T]) -> dict[T, T]:
    """A dictionary from the flat list of names and values that a script returns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


_DECODERS: Mapping[Decode | None, Callable[[Any], Any]] = {
    None: lambda reply: reply,
    "text": lambda reply: reply.decode(),
    "pairs": lambda reply: pairs([word.decode() for word in reply]),
}


class Script:
    """The script in ``PACKAGE/lua/NAME.lua``. Safe to share between threads.

    ``flags``: other flags than those of the file's first line.
    """

    def __init__(
        self,
        client: redis.Redis,
        name: str,
        *,
        flags: Flags | None = None,
        decode: Decode | None = None,
        package: str = "workers",
    ) -> None:
        text = source(name, package)
        if flags is not None:
            text = re.sub(r"\A#!lua.*", f"#!lua flags={flags}", text)
        self._script = client.register_script(text)
        self._decode = _DECODERS[decode]

    def __call__(self, *args: str | int | float | bytes) -> Any:
        """Run it and wait for the reply."""
        return self._decode(self._script(args=args))

    def command(
        self, *args: str | int | float | bytes, read: Callable[[Any], T] = lambda reply: reply
    ) -> RedisCommand[T]:
        """The run as a command that can be sent alone or in a pipeline; ``read`` takes the decoded reply."""

        def send(client: redis.Redis) -> Any:
            if isinstance(client, Pipeline):  # redis-py would ask in another round trip whether it is known
                return client.evalsha(self._script.sha, 0, *args)
            return self._script(args=args, client=client)

        return RedisCommand(send, lambda reply: read(self._decode(reply)))


@cache
def source(name: str, package: str = "workers") -> str:
    """The text of a script as Redis gets it.

    Raises `FileNotFoundError` for a script or include that does not exist, `ValueError` for a cycle of
    includes, and `AttributeError` for a constant that does not exist.
    """
    shebang, body = _read(name, package).split("\n", 1)
    return f"{shebang}\n{compiled(body)}"


def compiled(body: str) -> str:
    """``body`` with its includes, without comments, and before it the constants that it uses."""
    text = _COMMENT.sub("", _expanded(body, (), set()))
    used = sorted(set(_CONSTANT.findall(text)))
    return "\n".join([*(_table(kind, used) for kind in sorted({kind for kind, _ in used})), text])


def _table(kind: str, used: Sequence[tuple[str, str]]) -> str:
    """A Lua table of the constants of that kind: those of a module, keys without the ending ``_KEY``."""
    module = _TABLES[kind]
    values = {
        name: getattr(module, f"{name}_KEY", None) or getattr(module, name)
        for each, name in used
        if each == kind
    }
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    return f"local {kind} = {{{fields}}}"


def _read(name: str, package: str) -> str:
    return files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def _expanded(text: str, within: tuple[str, ...], included: set[str]) -> str:
    """``text`` with each include in its place, but for those that were ``included`` already."""

    def insert(match: re.Match[str]) -> str:
        name = match[1]
        if name in within:
            raise ValueError(f"Lua includes form a cycle: {' -> '.join((*within, name))}")
        if name in included:
            return ""
        included.add(name)
        return _expanded(_read(name, "workers"), (*within, name), included)

    return _INCLUDE.sub(insert, text)
