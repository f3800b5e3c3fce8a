"""``proxygrad models``: what can be asked about, without any server."""

from __future__ import annotations

import argparse

from proxygrad.cli.arguments import add_models
from proxygrad.errors import ModelError
from proxygrad.spec import ModelInfo

HELP = "list the models, or the layers of one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An optional MODEL, whose layers are listed then."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="list the layers of this model")
    add_models(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load and list. The exit status is 1 when a model cannot be loaded; the others are listed still."""
    from proxygrad.models import Catalog

    catalog = Catalog.from_file(arguments.models)
    if arguments.model is not None:
        _print_layers(catalog.load(arguments.model).info)
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
    return status


def _print_layers(info: ModelInfo) -> None:
    print(f"{'LAYER':<32} {'KIND':<12} {'TYPE':<20} {'UNITS':>6}  {'SHAPE':<14} ACTIVATION")
    for layer in info.layers:
        shape = "x".join(map(str, layer.shape))
        activation = (
            f"{(layer.stage or '').removesuffix('_activation')} {layer.activation}" if layer.stage else "-"
        )
        print(
            f"{layer.name:<32} {layer.kind:<12} {layer.type:<20} {layer.units:>6}  {shape:<14} {activation}"
        )
