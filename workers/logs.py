"""Log lines of gateway and worker: time, level, the request that they belong to, and the message.

As text for people, or as JSON for programs. Control characters, which callers may put into paths, headers and
names, are escaped in both: each entry is one line, and no line steers a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, NamedTuple

LogFormat = Literal["text", "json"]

#: What an operator wants to know of our own packages and of the server. Others may log secrets below WARNING,
#: such as httpx the URLs of webhooks.
LOGGERS = ("proxygrad", "service", "workers", "uvicorn")


_log = logging.getLogger(__name__)


class RequestContext(NamedTuple):
    """The request that is being answered: its id, and when it began, on the monotonic clock."""

    id: str
    began_s: float


#: None outside of requests.
request: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def format_of(environ: Mapping[str, str]) -> LogFormat:
    """The format that ``PROXYGRAD_LOG`` names; text for what is no format, which the settings refuse."""
    return "json" if environ.get("PROXYGRAD_LOG", "").strip() == "json" else "text"


def configure(form: LogFormat, access_logger: str | None = None) -> None:
    """Log to standard error in that format, and the lines of ``access_logger`` to standard output."""
    formatter = JsonFormatter() if form == "json" else TextFormatter()
    _send("", sys.stderr, formatter).setLevel(logging.WARNING)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    if access_logger is not None:
        _send(access_logger, sys.stdout, formatter).propagate = False
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda thrown: _uncaught(thrown.exc_type, thrown.exc_value, thrown.exc_traceback)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    """Log what nobody caught; Python would print it in lines of its own."""
    if error is not None and issubclass(kind, Exception):
        _log.critical("an unexpected error: %s", kind.__name__, exc_info=(kind, error, traceback))


def fail(error: Exception, form: LogFormat) -> int:
    """Say in one line what keeps a process from starting; its exit status."""
    if form == "json":
        _log.error("%s", error)
    else:
        print(f"error: {error}", file=sys.stderr)
    return 1


def _send(name: str, stream: Any, formatter: logging.Formatter) -> logging.Logger:
    logger, handler = logging.getLogger(name), logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.handlers = [handler]
    return logger


class TextFormatter(logging.Formatter):
    """``2026-01-01T00:00:00.000Z INFO [request] message``; the lines of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One entry."""
        current, access = request.get(), _access(record)
        parts = [_time(record), record.levelname]
        if current is not None:
            parts.append(f"[{current.id}]")
        parts.append(escaped(record.getMessage()))
        if access and "duration_ms" in access:
            parts.append(f"{access['duration_ms']:g} ms")
        below = self._traceback(record).splitlines()
        return "\n".join([" ".join(parts), *(f"    {escaped(line)}" for line in below)])

    def _traceback(self, record: logging.LogRecord) -> str:
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        return "\n".join([*parts, *([record.stack_info] if record.stack_info else [])])


class JsonFormatter(TextFormatter):
    """One object a line; keys that do not apply are left out."""

    def format(self, record: logging.LogRecord) -> str:
        """One entry."""
        current, traceback = request.get(), self._traceback(record)
        entry = {"time": _time(record), "level": record.levelname, "logger": record.name}
        if current is not None:
            entry["request_id"] = current.id
        entry["message"] = record.getMessage()
        if traceback:
            entry["traceback"] = traceback
        return json.dumps({**entry, **_access(record)})


def _access(record: logging.LogRecord) -> dict[str, Any]:
    """What uvicorn's access log says of a request whose response begins."""
    if record.name != "uvicorn.access" or not isinstance(record.args, tuple) or len(record.args) != 5:
        return {}
    client, method, target, _, status = record.args
    found = {"client": client, "method": method, "target": target, "status": status}
    if (current := request.get()) is not None:
        found["duration_ms"] = round((time.monotonic() - current.began_s) * 1000, 1)
    return found


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return at.replace("+00:00", "Z")


def escaped(text: str) -> str:
    """The text with every character escaped that is not printable, line ends among them."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )
