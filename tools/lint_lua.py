"""Lint the Lua scripts: each compiles in a real Valkey, and uses no undeclared global.

    python -m tools.lint_lua

Starts an embedded Valkey. Globals are found in the bytecode that Valkey's own compiler makes of a script, so
also on paths that no test takes; in Redis a global fails only when its line runs. The format of the bytecode
is that of Lua 5.1 (K.-H. Man, "A No-Frills Introduction to Lua 5.1 VM Instructions", 2006).
"""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, cast

from redis import Redis
from redis.exceptions import ResponseError

from service.stack.valkey import EmbeddedValkey
from workers.broker.scripts import source

#: What scripts use of the globals of Redis' sandbox.
ALLOWED = frozenset(
    [
        *("ARGV", "cjson", "error", "ipairs", "math", "next", "pairs", "pcall", "redis", "string", "table"),
        *("tonumber", "tostring", "type", "unpack"),
    ]
)
_GET_GLOBAL, _SET_GLOBAL = 5, 7
_NIL, _BOOLEAN, _NUMBER, _STRING = 0, 1, 3, 4
_COMPILE = "return string.dump(assert(loadstring(ARGV[1])))"


class Global(NamedTuple):
    """One use of a global: its name, the line, and whether it is assigned."""

    name: str
    line: int
    assigned: bool


class Bytecode:
    """Reads a dumped chunk of Lua 5.1."""

    def __init__(self, dump: bytes) -> None:
        self._dump = dump
        self._at = 12  # after the header
        if dump[:5] != b"\x1bLuaQ" or dump[6:12] != bytes((1, 4, 8, 4, 8, 0)):
            raise ValueError(f"this is no bytecode of a 64-bit, little-endian Lua 5.1: {dump[:12]!r}")
        #: Most registers of the main function: its locals, of which Lua allows 200, and temporaries.
        self.registers = 0

    def globals(self) -> Iterator[Global]:
        """Every use of a global in a function and those within it."""
        self._string()
        self._skip(4 + 4 + 3)
        (registers,) = self._take("<B")
        self.registers = self.registers or registers
        code = self._array("<I")
        constants = [self._constant() for _ in range(self._length())]
        functions = self._length()
        inner = [each for _ in range(functions) for each in self.globals()]
        lines = self._array("<i")
        for _ in range(self._length()):  # locals
            self._string()
            self._skip(8)
        for _ in range(self._length()):  # upvalues
            self._string()
        for instruction, line in zip(code, lines, strict=True):
            if instruction & 0x3F in (_GET_GLOBAL, _SET_GLOBAL):
                name = constants[instruction >> 14]
                yield Global(cast(bytes, name).decode(), line, instruction & 0x3F == _SET_GLOBAL)
        yield from inner

    def _constant(self) -> object:
        (kind,) = self._take("<B")
        if kind == _STRING:
            return self._string()
        return self._take({_NIL: "<", _BOOLEAN: "<B", _NUMBER: "<d"}[kind])

    def _string(self) -> bytes:
        (length,) = self._take("<Q")
        text = self._dump[self._at : self._at + max(0, length - 1)]
        self._skip(length)
        return text

    def _array(self, form: str) -> list[int]:
        return [self._take(form)[0] for _ in range(self._length())]

    def _length(self) -> int:
        return int(self._take("<i")[0])

    def _take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._dump, self._at)
        self._skip(struct.calcsize(form))
        return values

    def _skip(self, count: int) -> None:
        self._at += count


def scripts() -> Iterator[tuple[str, str]]:
    """Package and name of every script, without the libraries."""
    for package in ("workers", "service"):
        root = Path(str(files(package).joinpath("lua")))
        for file in sorted(root.rglob("*.lua")):
            name = file.relative_to(root).with_suffix("").as_posix()
            if not name.startswith("lib/"):
                yield package, name


def faults(redis: Redis, text: str) -> list[str]:
    """What is wrong with the text of a script."""
    try:
        redis.script_load(text)
    except ResponseError as error:
        return [str(error)]
    found = []
    for name, line, assigned in Bytecode(_compiled(redis, text)).globals():
        if assigned or name not in ALLOWED:
            verb = "assigns" if assigned else "uses"
            found.append(f"line {line} {verb} the global {name!r}: {text.splitlines()[line - 1].strip()}")
    return found


def _compiled(redis: Redis, text: str) -> bytes:
    # The first line is a shebang, which is none of Lua; without its text, lines keep their numbers.
    return cast(bytes, redis.eval(_COMPILE, 0, text[text.index("\n") :]))


def main() -> int:
    """Lint all scripts; the exit status."""
    status = 0
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedValkey(Path(directory)) as server,
        Redis.from_url(server.url) as redis,
    ):
        for package, name in scripts():
            for fault in faults(redis, source(name, package)):
                print(f"{package}/lua/{name}.lua: {fault}", file=sys.stderr)
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
