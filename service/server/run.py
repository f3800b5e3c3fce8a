"""``python -m service``: runs the gateway on the address in the environment, or on an inherited socket."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from proxygrad.errors import ProxyGradError
from proxygrad.protocol.addresses import is_loopback
from service import descriptors
from service.app import create_app
from service.backend.backend import Backend
from service.middleware.request_id import RequestId
from service.server.access_log import without_secrets
from service.server.protocol import MAX_INCOMPLETE_BYTES, bounded
from service.server.sockets import BACKLOG, address, listen
from service.settings import ServiceSettings
from service.web.paths import PROBES, SCRAPED
from workers import logs

_log = logging.getLogger(__name__)

#: Short requests end in well under a second, long waits let go at once; what is left after this is cut off.
GRACE_S = 3
#: Connections accepted at a time. asyncio accepts as many as the backlog is long before it opens the first,
#: and with no descriptor left it logs a traceback for each of them (48 MB in half a minute).
ACCEPTED_AT_ONCE = 16
#: Idle connections are kept longer than the pause between two polls of a patient client.
KEEP_ALIVE_S = 15


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a line of the access log is about anything but health checks and scrapes."""
    path = record.args[2] if isinstance(record.args, tuple) and len(record.args) > 2 else ""
    return path not in PROBES | SCRAPED


class _Server(uvicorn.Server):
    """Ends long waits when the process is to stop, which uvicorn would wait for; SIGHUP stops it too."""

    def __init__(self, config: uvicorn.Config, backend: Backend) -> None:
        super().__init__(config)
        self._backend = backend

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)  # asyncio has made it as short as it accepts at a time

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._backend.close()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under `nohup`
            signal.signal(signal.SIGHUP, self.handle_exit)
        with super().capture_signals():
            yield


def server_config(app: FastAPI) -> uvicorn.Config:
    """The configuration of uvicorn: HTTP/1.1 alone, with limits on slow clients."""
    return uvicorn.Config(
        RequestId(app),
        interface="asgi3",  # uvicorn would take it for another, as its `__call__` is no coroutine function
        log_config=None,  # `workers.logs` has configured it
        http=bounded(descriptors.max_connections()),
        ws="none",
        h11_max_incomplete_event_size=MAX_INCOMPLETE_BYTES,
        backlog=ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


def _as_reachable(settings: ServiceSettings, listener: socket.socket) -> ServiceSettings:
    """The settings for this socket, wherever it came from: keys are required unless it is on loopback."""
    bound = listener.getsockname()
    if isinstance(bound, tuple) and is_loopback(bound[0]):
        return settings
    return settings.model_copy(update={"require_keys": True})


def main(arguments: list[str]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m service", description="The ProxyGrad gateway.")
    parser.add_argument(
        "--fd", type=int, help="file descriptor of a listening socket, inherited from a supervisor"
    )
    fd = parser.parse_args(arguments).fd
    form = logs.format_of(os.environ)
    logs.configure(form, access_logger="uvicorn.access")
    try:
        descriptors.raise_limit()
        settings = ServiceSettings.from_env(os.environ)
        listener = listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
        app = create_app(_as_reachable(settings, listener))
    except ProxyGradError as error:
        return logs.fail(error, form)
    config = server_config(app)
    _log.info("listening on %s", address(listener))
    if app.state.backend.settings.keys_required:
        _log.info("every request needs a key: `proxygrad keys create NAME` makes one")
    logging.getLogger("uvicorn.access").addFilter(_is_worth_logging)
    logging.getLogger("uvicorn.access").addFilter(without_secrets)
    # Objects of this far live on. Scanned again and again they cost pauses of 40 ms each second of load.
    gc.collect()
    gc.freeze()
    with listener:
        _Server(config, app.state.backend).run(sockets=[listener])
    return 0
