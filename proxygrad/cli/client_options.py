"""Options of the commands that use a service: its address and key, whether to wait, JSON output."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from proxygrad.protocol.addresses import DEFAULT_URL

if TYPE_CHECKING:
    from proxygrad.client import Client


def add_client_options(parser: argparse.ArgumentParser, awaited: str) -> None:
    """Declare ``--no-wait``, ``--json``, ``--url`` and ``--key``; ``awaited``: what the command waits for."""
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"wait for {awaited}, or print the id and exit",
    )
    parser.add_argument("--json", action="store_true", help="print the whole document as JSON")
    parser.add_argument(
        "--url", metavar="URL", help=f"URL of the service (PROXYGRAD_URL, default {DEFAULT_URL})"
    )
    parser.add_argument(
        "--key", help="API key (better PROXYGRAD_API_KEY: others on this machine can see arguments)"
    )


@contextmanager
def connected(arguments: argparse.Namespace) -> Iterator[Client]:
    """A client for the arguments; its warnings and pauses are printed to standard error."""
    from proxygrad.client import Client

    logger, handler = logging.getLogger("proxygrad.client"), _StderrHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            client = Client(arguments.url, arguments.key)
        for warning in caught:
            print(f"warning: {warning.message}", file=sys.stderr)
        with client:
            yield client
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def interruptible_wait(job_id: str) -> Iterator[None]:
    """A wait that Ctrl-C ends without canceling the job; standard error says its id."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"goes on as {job_id}", file=sys.stderr, flush=True)
        raise


class _StderrHandler(logging.Handler):
    """Prints to the standard error of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)
