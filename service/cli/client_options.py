"""What the commands that ask a service have in common: where, with which key, and what is told meanwhile."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.client import Client


def add_following(parser: argparse.ArgumentParser, awaited: str) -> None:
    """``--no-wait``, ``--json``, and where to ask; ``awaited``: what is waited for, in words."""
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"wait for {awaited}, or print the id and leave",
    )
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    add_service(parser)


def add_service(parser: argparse.ArgumentParser) -> None:
    """``--url`` and ``--key``."""
    parser.add_argument(
        "--url", metavar="URL", help="of the service (PROXYGRAD_URL, default http://127.0.0.1:8000)"
    )
    parser.add_argument(
        "--key", help="API key (better PROXYGRAD_API_KEY: others on this machine can see arguments)"
    )


@contextmanager
def asking(arguments: argparse.Namespace) -> Iterator[Client]:
    """A client as the arguments have it, which tells on standard error why it is taking so long."""
    from service.client import Client

    logger, told = logging.getLogger("service.client"), _Told()
    level = logger.level
    logger.addHandler(told)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            client = Client(arguments.url, arguments.key)
        for warning in warned:
            print(f"warning: {warning.message}", file=sys.stderr)
        with client:
            yield client
    finally:
        logger.removeHandler(told)
        logger.setLevel(level)


@contextmanager
def going_on(name: str) -> Iterator[None]:
    """While something is waited for: Ctrl-C ends the waiting alone, and standard error says so."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"goes on as {name}", file=sys.stderr, flush=True)
        raise


class _Told(logging.Handler):
    """Prints to what is standard error at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)
