"""Which of torchvision's classification models can be visualized?

Builds every model of ``torchvision.models`` with random weights, at the smallest of ``--sizes-px`` that it
takes, maximizes the first unit of its middle layer for a few steps, and prints one row for each. Models that
cannot are listed with the reason, and the exit status is 1 if there are any.

    python benchmarks/zoo.py
    python benchmarks/zoo.py --models vit_b_32 swin_t --steps 8
"""

from __future__ import annotations

import argparse
import gc
import math
import time
import warnings

import torch

from proxygrad import Channel, Network, maximize
from proxygrad.errors import ProxyGradError
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.spec import LayerInfo


def visualize(name: str, sizes_px: list[int], steps: int) -> str:
    """The row of one model. Raises `ProxyGradError` when it cannot be visualized."""
    began = time.monotonic()
    network = prepared(name, sizes_px)
    layer = middle(network)
    outcome = maximize(network, Channel(layer.name, 0), steps=steps)
    if not all(map(math.isfinite, (*outcome.curve, outcome.activation))):
        raise ProxyGradError(f"the activation left finite numbers: {outcome.curve}")
    kinds = {kind: sum(each.kind == kind for each in network.layers) for kind in ("feature_map", "tokens")}
    shape = "x".join(map(str, layer.shape))
    return (
        f"{name:<20} {network.input_shape[1]:>4} {kinds['feature_map']:>5} {kinds['tokens']:>6} "
        f"{len(network.unlisted):>8}  {layer.name[-44:]:<44} {layer.kind:<11} {shape:<13} "
        f"{outcome.start_activation:>9.3g} {outcome.activation:>9.3g} "
        f"{time.monotonic() - began:>5.1f}"
    )


def prepared(name: str, sizes_px: list[int]) -> Network:
    """The model with random weights, at the first of the sizes that it takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torchvision: on how two old models are initialized
        module = import_torchvision().models.get_model(name, weights=None)
    for size_px in sizes_px[:-1]:
        try:
            with torch.no_grad():
                module.eval()(torch.full((1, 3, size_px, size_px), 0.5))
        except (RuntimeError, ValueError, AssertionError):
            continue
        return Network(module, (3, size_px, size_px), name=name)
    return Network(module, (3, sizes_px[-1], sizes_px[-1]), name=name)


def middle(network: Network) -> LayerInfo:
    """Of the layers with several positions, the one in the middle."""
    layers = [layer for layer in network.layers if math.prod(layer.grid) > 1]
    return layers[len(layers) // 2]


def main() -> int:
    """Go through the models and print the table."""
    models = import_torchvision().models
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=models.list_models(module=models))
    parser.add_argument("--sizes-px", nargs="+", type=int, default=[64, 96, 224])
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()

    print(
        f"{'model':<20} {'px':>4} {'maps':>5} {'tokens':>6} {'unlisted':>8}  {'layer (unit 0)':<44} "
        f"{'kind':<11} {'shape':<13} {'start':>9} {'achieved':>9} {'s':>5}"
    )
    failed = {}
    for name in arguments.models:
        torch.manual_seed(0)
        try:
            print(visualize(name, arguments.sizes_px, arguments.steps), flush=True)
        except Exception as error:  # the reason is what is asked for, whatever it is
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"{name:<20} cannot: {failed[name]}", flush=True)
        gc.collect()
    print(f"{len(arguments.models) - len(failed)} of {len(arguments.models)} models can be visualized")
    for name, reason in failed.items():
        print(f"cannot: {name}: {reason}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
