"""A `Spec` on the command line, and a `Result` on the terminal. No torch: ``submit`` uses it too."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from proxygrad.errors import BadRequest
from proxygrad.home import models_file
from proxygrad.settings import Settings
from proxygrad.spec import ObjectiveKind, Result, Spec

_NUMBERS: dict[object, type] = {float: float, float | None: float, int: int, int | None: int}


def add_question(parser: argparse.ArgumentParser) -> None:
    """MODEL LAYER UNIT and one option for each setting; what is not given keeps the default of `Spec`."""
    parser.add_argument("model", metavar="MODEL", help="name of a model")
    parser.add_argument("layer", metavar="LAYER", help="name of a layer")
    parser.add_argument("unit", metavar="UNIT", type=int, help="number of a unit, from 0")
    parser.add_argument("--objective", choices=get_args(ObjectiveKind), help="default by the layer's kind")
    parser.add_argument("--position", type=int, nargs="+", metavar="N", help="row and column, or token")
    for name in Settings.model_fields:
        field = Spec.model_fields[name]
        option = f"--{name.replace('_', '-')}"
        told = (field.description or "").partition(". ")[0].replace("`", "")
        if field.annotation is bool:
            parser.add_argument(option, action="store_true", default=None, help=told)
            continue
        number = _NUMBERS.get(field.annotation)
        parser.add_argument(
            option,
            type=number or str,
            choices=None if number else get_args(field.annotation),
            metavar="N" if number else None,
            help=told,
        )


def add_models(parser: argparse.ArgumentParser) -> None:
    """``--models``, which defaults to the file that a worker of the same user would read."""
    default = models_file(os.environ)
    where = str(default) if default else "the bundled model only"
    parser.add_argument("--models", type=Path, default=default, help=f"a models.toml; default: {where}")


def spec_from(arguments: argparse.Namespace) -> Spec:
    """The `Spec` that was typed. Raises `BadRequest` naming each value that is out of its limits."""
    given = {name: getattr(arguments, name) for name in Spec.model_fields}
    try:
        return Spec.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        flaws = (
            f"{'.'.join(map(str, flaw['loc']))} {flaw['input']!r}: {flaw['msg']}" for flaw in error.errors()
        )
        raise BadRequest("; ".join(flaws)) from error


def describe(result: Result) -> list[tuple[str, str]]:
    """What a person wants to know of a result, as (label, value) rows."""
    spec = result.spec
    where = f" at position {list(spec.position)}" if spec.position else ""
    return [
        ("unit", f"{spec.model} {spec.layer} {spec.unit}, {spec.objective}{where}"),
        ("achieved activation", f"{result.achieved_activation:.6g}"),
        ("start activation", f"{result.start_activation:.6g}"),
        ("stuck", "yes: no gradient to follow" if result.stuck else "no"),
        ("slope, steps, seed", f"{spec.slope:g}, {result.steps_done}, {spec.seed}"),
        ("image", f"{result.width_px} x {result.height_px} px"),
        (
            "computed",
            f"{result.ran_s:.2f} s on {result.device}, {result.dtype}, {result.steps_per_s:.0f} steps/s",
        ),
    ]
