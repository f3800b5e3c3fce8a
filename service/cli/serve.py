"""``proxygrad serve``: the whole service on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

HELP = "keep the gateway, one worker and an embedded Valkey up until Ctrl-C"
EXTRA = "service,worker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the addresses and the data directory; each stands for an environment variable."""
    parser.add_argument("--host", help="address to listen on (PROXYGRAD_HOST, default 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on, 0 for any free one (PROXYGRAD_PORT, default 8000)")
    add_home(parser)


def add_home(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """``--home``, which stands for `PROXYGRAD_HOME`."""
    parser.add_argument(
        "--home",
        default=default,
        help="data directory (PROXYGRAD_HOME, default ~/.local/share/proxygrad)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve; returns 0 when asked to stop, raises what keeps it from starting."""
    from service.settings import ServiceSettings
    from service.stack.supervisor import Stack

    environ = overridden(os.environ, arguments)
    settings = ServiceSettings.from_env(environ)
    with interruptible() as interrupted:
        try:
            with Stack(settings, environ, say=_say, interrupted=interrupted) as stack:
                _say(f"ProxyGrad listens on {stack.url} (documentation: {stack.url}/docs)")
                _say(f"data directory: {settings.home}")
                stack.supervise()
        except KeyboardInterrupt:
            _say("stopped")
    return 0


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Let SIGTERM, and SIGHUP of a closed terminal, end the program the way Ctrl-C does.

    Under ``nohup`` SIGHUP goes on being ignored. SIGINT is named too: a program that a script starts in the
    background inherits it ignored. The first one sets the event, which loops look at: Python drops an
    exception that is raised while an object is finalized, and tells the terminal of it. Only one more raises
    it, should something else take long; not SIGHUP, which systemd sends right after SIGTERM (`SendSIGHUP`).
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    interrupted = threading.Event()
    count = itertools.count()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        if next(count) and number != signal.SIGHUP:
            raise KeyboardInterrupt

    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield interrupted
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def overridden(environ: Mapping[str, str], arguments: argparse.Namespace) -> dict[str, str]:
    """The environment with ``--host``, ``--port`` and ``--home`` in it, as far as the command has them."""
    given = {f"PROXYGRAD_{name.upper()}": getattr(arguments, name, None) for name in ("host", "port", "home")}
    return {**environ, **{name: value for name, value in given.items() if value is not None}}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
