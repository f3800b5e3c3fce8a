"""``proxygrad models``: what can be asked about, without any server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from proxygrad.cli.arguments import add_models
from proxygrad.errors import ModelError

HELP = "list the models, or the layers of one"
EXTRA = "engine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An optional MODEL, whose layers are listed then."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="list the layers of this model")
    add_models(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load and list, with notes. Exit status 1 when a model cannot be loaded; the others are listed still."""
    from proxygrad.models import Catalog

    catalog = Catalog.from_file(arguments.models)
    if arguments.model is not None:
        network = catalog.load(arguments.model)
        print(network.layers)
        _print_notes(network.info.notes)
        return 0
    status = 0
    for name in catalog.names:
        try:
            info = catalog.load(name).info
        except ModelError as error:
            print(f"{name:<20} cannot be loaded: {error}")
            status = 1
        else:
            shape = "x".join(map(str, info.input_shape))
            print(f"{name:<20} input {shape}, {len(info.layers)} layers, digest {info.digest[:12]}")
            _print_notes(info.notes)
    return status


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"  note: {note}")
