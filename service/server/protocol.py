"""Time limits of a connection: for the header of a request to arrive, and for a response to be read.

uvicorn bounds neither. Its own HTTP/1.1 protocol on h11 is used, whatever else is installed, so that every
installation has the same limits.
"""

from __future__ import annotations

import asyncio
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from proxygrad.protocol.problems import MEDIA_TYPE, ProblemCode
from service.problems import ProblemError

#: From the first byte of a request, or from the connection where none came yet, to the end of its header.
HEADER_S = 10.0
#: How long 64 KiB of an answer, asyncio's high-water mark, may wait for its reader to take three quarters.
UNREAD_S = 30.0
#: Bytes of a header that has not ended yet.
MAX_INCOMPLETE_BYTES = 16 * 1024


class BoundedH11Protocol(H11Protocol):
    """The HTTP/1.1 protocol of uvicorn, with time limits; malformed requests are answered with a problem."""

    _header_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the header."""
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(HEADER_S, self._header_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the time of a header at its first byte, end it at its last."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            if self._header_timer is None:
                self._header_timer = self.loop.call_later(HEADER_S, self._header_is_late)
        elif self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

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

    def _end(self, code: ProblemCode, detail: str) -> None:
        """Send the problem, unless a response has begun, and close."""
        problem = ProblemError(code, detail)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = problem.details().model_dump_json().encode()
            headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(content)), "Connection": "close"}
            response = h11.Response(status_code=problem.status, headers=list(headers.items()))
            for event in (response, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop_timers(self) -> None:
        for timer in (self._header_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._header_timer = self._unread_timer = None
