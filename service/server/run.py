"""``python -m service``: the gateway, on the address that the environment names or on an inherited socket."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import socket
import sys
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI

from proxygrad.errors import ProxyGradError
from proxygrad.protocol.addresses import is_loopback
from service.app import create_app
from service.backend.gateway import Gateway
from service.middleware.hosts import PROBES, SCRAPED
from service.server.protocol import MAX_INCOMPLETE_BYTES, BoundedH11Protocol
from service.settings import Settings
from service.stack.supervisor import address, listen

#: Short requests end in well under a second, long waits let go at once; what is left after this is cut off.
GRACE_S = 3
#: Idle connections are kept longer than the pause between two polls of a patient client.
KEEP_ALIVE_S = 15


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a line of the access log is about more than health checks and scrapes, which never end."""
    path = record.args[2] if isinstance(record.args, tuple) and len(record.args) > 2 else ""
    return path not in PROBES | SCRAPED


class _Server(uvicorn.Server):
    """Tells the gateway when to let go of long waits, which uvicorn would sit out."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._gateway.close()
        super().handle_exit(sig, frame)


def server_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves: by HTTP/1.1 alone, with bounds on slow clients."""
    return uvicorn.Config(
        app,
        http=BoundedH11Protocol,
        ws="none",
        h11_max_incomplete_event_size=MAX_INCOMPLETE_BYTES,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


def _as_reachable(settings: Settings, listener: socket.socket) -> Settings:
    """Settings for the socket as it is, wherever it came from: keys are required unless it is on loopback."""
    bound = listener.getsockname()
    if isinstance(bound, tuple) and is_loopback(bound[0]):
        return settings
    return replace(settings, require_keys=True)


def main(arguments: list[str]) -> int:
    """Serve until SIGINT or SIGTERM; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m service", description="The ProxyGrad gateway.")
    parser.add_argument(
        "--fd", type=int, help="file descriptor of a listening socket, inherited from a supervisor"
    )
    fd = parser.parse_args(arguments).fd
    try:
        settings = Settings.from_env(os.environ)
        listener = listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
        app = create_app(_as_reachable(settings, listener))
    except ProxyGradError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    config = server_config(app)
    print(f"listening on {address(listener)}", file=sys.stderr, flush=True)
    if app.state.gateway.settings.keys_required:
        print(
            "every request needs a key: `proxygrad keys create NAME` makes one", file=sys.stderr, flush=True
        )
    logging.getLogger("uvicorn.access").addFilter(_is_worth_logging)
    # What is there by now stays. Looked through again and again, it cost pauses of 40 ms each second of load.
    gc.collect()
    gc.freeze()
    with listener:
        _Server(config, app.state.gateway).run(sockets=[listener])
    return 0
