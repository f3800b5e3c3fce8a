"""The ``proxygrad`` command line, whose subcommands are found by entry points.

Each subcommand is a module in the entry-point group ``proxygrad.commands``, with ``HELP``, ``EXTRA``,
``add_arguments(parser)`` and ``run(arguments) -> int``. So this package does not import the service, whose
``serve``, ``demo`` and ``keys`` are listed only where it can be imported: in a checkout or an image.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from proxygrad.errors import ProxyGradError
from proxygrad.extras import lacks
from proxygrad.version import __version__

GROUP = "proxygrad.commands"


class Command(Protocol):
    """What the module of a subcommand offers."""

    HELP: str
    #: The extras that bring what it needs.
    EXTRA: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the subcommand's own arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit status. A `ProxyGradError` becomes one line on standard error and exit status 1."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 1 an error that was explained, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    command = cast(Command, arguments.command)
    try:
        return command.run(arguments)
    except ProxyGradError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: {lacks(error, command.EXTRA)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit says nothing either
        return 141  # 128 + SIGPIPE
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proxygrad", description="Visualize what a unit of a neural network responds to."
    )
    parser.add_argument("--version", action="version", version=f"proxygrad {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command in sorted(_commands().items()):
        subparser = subparsers.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(command=command)
    return parser


def _commands() -> dict[str, Command]:
    """The subcommands by name; of several with one name, the first on the path."""
    commands: dict[str, Command] = {}
    for entry in entry_points(group=GROUP):
        command = None if entry.name in commands else _load(entry)
        if command is not None:
            commands[entry.name] = command
    return commands


def _load(entry: EntryPoint) -> Command | None:
    """The subcommand; None if its package cannot be imported here."""
    try:
        return cast(Command, entry.load())
    except ModuleNotFoundError:
        return None
