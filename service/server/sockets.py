"""The listening socket: opened before anything else starts, so that a port in use is found at once."""

from __future__ import annotations

import errno
import socket

from proxygrad.errors import ProxyGradError

#: Connections that wait to be accepted, as uvicorn has it.
BACKLOG = 2048


class ListenError(ProxyGradError):
    """The address cannot be listened on."""

    code = "cannot_listen"


class PortInUse(ListenError):
    """Another program listens on the port."""

    code = "port_in_use"


def listen(host: str, port: int, option: str = "PROXYGRAD_PORT") -> socket.socket:
    """A listening socket on `host` and `port` (0: any free one); raises `PortInUse` or `ListenError`.

    ``option``: how another port is named, for the message.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. asyncio sets it only where the socket names its protocol, and without it a
        # body waits for the acknowledgment of its header: 40 ms a response on a kept-alive connection.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use by another program; name another with {option} "
                "(0 takes any free one)"
            ) from error
        raise ListenError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def address(listener: socket.socket) -> str:
    """The URL of `listener`, reachable from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
