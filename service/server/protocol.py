"""Limits of connections: their number, and the time of a header, an unread body and an unread response.

uvicorn bounds none of these. Its own HTTP/1.1 protocol on h11 is used, whatever else is installed, so that
every installation has the same limits.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from proxygrad.protocol.problems import MEDIA_TYPE, ProblemCode
from service.descriptors import RESERVED
from service.middleware.limits import BODY_S
from service.problems import ProblemError

#: From the first byte of a request, or from the connection where none came yet, to the end of its header.
HEADER_S = 10.0
#: How long 64 KiB of an answer, asyncio's high-water mark, may wait for its reader to take three quarters.
UNREAD_S = 30.0
#: How often refused connections are logged.
WARN_EACH_S = 60.0
#: Bytes of a header that has not ended yet.
MAX_INCOMPLETE_BYTES = 16 * 1024


_log = logging.getLogger(__name__)


class BoundedH11Protocol(H11Protocol):
    """The HTTP/1.1 protocol of uvicorn, with time limits; malformed requests are answered with a problem."""

    #: Most connections at once; more are refused at once.
    max_connections = sys.maxsize
    #: When that was last logged, on the clock of the event loop.
    warned_at_s = float("-inf")

    _header_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _body_is_late = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the header, unless there are too many connections."""
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(HEADER_S, self._header_is_late)
        if len(self.connections) > self.max_connections:
            detail = f"this server has {self.max_connections} connections already"
            if self.loop.time() - type(self).warned_at_s > WARN_EACH_S:
                type(self).warned_at_s = self.loop.time()
                _log.warning("connections are refused: %s (`ulimit -n` is %d more)", detail, RESERVED)
            self._end("too_many_connections", detail)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the time of a header at its first byte, end it at its last; then that of a body."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            if self._header_timer is None:
                self._header_timer = self.loop.call_later(HEADER_S, self._header_is_late)
        elif self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        self._time_body()

    def on_response_complete(self) -> None:
        """Go on with the next request, unless the body of this one is late."""
        super().on_response_complete()
        self._time_body()
        if self._body_is_late and not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        """Start the time of the slow reader."""
        super().pause_writing()
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the time: the reader has caught up."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request. uvicorn calls this while it handles the error of h11."""
        error = sys.exc_info()[1]
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            detail = f"the header has more than {MAX_INCOMPLETE_BYTES} bytes, and its end did not come"
            self._end("headers_too_large", detail)
        else:
            self._end("bad_request", "this is not an HTTP/1.1 request")

    def _header_is_late(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self._end("request_timeout", f"the header of the request did not come within {HEADER_S:g} s")

    def _time_body(self) -> None:
        """Start the time of a body at the end of its header, end it with the body."""
        arriving = self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing()
        if arriving and self._body_timer is None:
            self._body_timer = self.loop.call_later(BODY_S, self._end_late_body)
        elif not arriving:
            if self._body_timer is not None:
                self._body_timer.cancel()
            self._body_timer, self._body_is_late = None, False

    def _end_late_body(self) -> None:
        """Close, if the request was answered without its body. A route that reads it answers 408 itself."""
        self._body_is_late = True
        if self.cycle.response_complete:
            self.transport.close()

    def _end(self, code: ProblemCode, detail: str) -> None:
        """Send the problem, unless a response has begun, and close."""
        problem = ProblemError(code, detail)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = problem.details().model_dump_json().encode()
            headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(content)), "Connection": "close"}
            headers |= problem.headers()
            response = h11.Response(status_code=problem.status, headers=list(headers.items()))
            for event in (response, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop_timers(self) -> None:
        for timer in (self._header_timer, self._body_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._header_timer = self._body_timer = self._unread_timer = None


def bounded(max_connections: int) -> type[BoundedH11Protocol]:
    """The protocol for a server that may have so many connections."""
    return type("BoundedH11Protocol", (BoundedH11Protocol,), {"max_connections": max_connections})
