"""Server-sent events (WHATWG HTML, section 9.2.6): from bytes to frames, from frames to typed events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from proxygrad.protocol.events import EVENTS, Event

_LINE = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Frame:
    """One event as it was sent."""

    kind: str
    data: str

    def event(self) -> Event | None:
        """The typed event; None for a kind newer than this client. Raises `pydantic.ValidationError`."""
        for kind, model in EVENTS.items():
            if self.kind == kind:
                return model.model_validate_json(self.data)
        return None


class Decoder:
    """Decodes frames from bytes, wherever those are split."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self._rest = b""
        self._kind = ""
        self._data: list[str] = []
        self._id: str | None = None

    def frames(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that ``chunk`` completes."""
        self._rest += chunk
        held = b"\r" if self._rest.endswith(b"\r") else b""  # its "\n" may come with the next chunk
        *lines, self._rest = _LINE.split(self._rest.removesuffix(held))
        self._rest += held
        for line in lines:
            if line:
                self._field(line.decode(errors="replace"))
            else:
                yield from self._frame()

    def reset(self) -> None:
        """Drop an incomplete frame at the end of a stream; `last_id` stays."""
        self._rest, self._kind, self._data, self._id = b"", "", [], None

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value

    def _frame(self) -> Iterator[Frame]:
        if self._id is not None:
            self.last_id = self._id or None
        if self._data:
            yield Frame(self._kind or "message", "\n".join(self._data))
        self._kind, self._data, self._id = "", [], None
