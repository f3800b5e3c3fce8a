"""``python -m service``: the gateway, on the address that the environment names or on an inherited socket."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from types import FrameType

import uvicorn

from proxygrad.errors import ProxyGradError
from service.app import create_app
from service.gateway import Gateway
from service.settings import Settings
from service.stack import address, listen

#: Short requests end in well under a second, long waits let go at once; what is left after this is cut off.
GRACE_S = 3
#: Idle connections are kept longer than the pause between two polls of a patient client.
KEEP_ALIVE_S = 15


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a line of the access log is about anything but a health check, of which there is no end."""
    path = record.args[2] if isinstance(record.args, tuple) and len(record.args) > 2 else ""
    return path not in ("/livez", "/readyz")


class _Server(uvicorn.Server):
    """Tells the gateway when to let go of long waits, which uvicorn would sit out."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._gateway.close()
        super().handle_exit(sig, frame)


def main(arguments: list[str]) -> int:
    """Serve until SIGINT or SIGTERM; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m service", description="The ProxyGrad gateway.")
    parser.add_argument(
        "--fd", type=int, help="file descriptor of a listening socket, inherited from a supervisor"
    )
    fd = parser.parse_args(arguments).fd
    try:
        settings = Settings.from_env(os.environ)
        app = create_app(settings)
        listener = listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
    except ProxyGradError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    config = uvicorn.Config(app, timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=KEEP_ALIVE_S)
    print(f"listening on {address(listener)}", file=sys.stderr, flush=True)
    logging.getLogger("uvicorn.access").addFilter(_is_worth_logging)
    with listener:
        _Server(config, app.state.gateway).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
