"""What the benchmarks have in common: how they are told what to ask, and how they ask it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from proxygrad import Catalog, Network, Objective, Result, Spec, Visualization
from proxygrad.engine.request import requested_objective
from proxygrad.spec import ObjectiveKind


def parser_of(
    description: str | None, layers: list[str], units: tuple[int, str], steps: int | None
) -> argparse.ArgumentParser:
    """For units of layers, an image size and a number of steps; ``units``: how many by default, and which."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--layers", nargs="+", default=layers)
    parser.add_argument("--units", type=int, default=units[0], help=units[1])
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--size-px", type=int)
    return parser


def network_of(arguments: argparse.Namespace) -> Network:
    """The model that `parser_of` was told."""
    return Catalog.from_file(arguments.models).load(arguments.model)


def question(network: Network, layer: str, unit: int, objective: ObjectiveKind | None = None) -> Objective:
    """What a request for this unit asks for; ``objective`` None: what it gets if it names none."""
    spec = Spec(model=network.name, layer=layer, unit=unit, objective=objective)
    return requested_objective(spec.resolve(network.info))


def ratios(found: Sequence[Visualization | Result], base: Sequence[Visualization | Result]) -> list[float]:
    """Achieved activations, ``found`` to ``base``, over the units that ``base`` moved."""
    return [
        achieved(ours) / achieved(theirs)
        for ours, theirs in zip(found, base, strict=True)
        if not theirs.stuck and achieved(theirs) > 0
    ]


def achieved(found: Visualization | Result) -> float:
    """The activation of the image."""
    return found.activation if isinstance(found, Visualization) else found.achieved_activation


def shown(values: list[float], width: int = 6, digits: int = 3) -> tuple[str, str]:
    """The median and the least, as columns; dashes where there is none."""
    if not values:
        return f"{'-':>{width}}", f"{'-':>{width}}"
    return f"{median(values):>{width}.{digits}f}", f"{min(values):>{width}.{digits}f}"
