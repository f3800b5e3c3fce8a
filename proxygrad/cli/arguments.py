"""A `Spec` on the command line, and a `Result` on the terminal. No torch: ``submit`` uses it too."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxygrad.errors import InvalidRequest
from proxygrad.paths import models_file
from proxygrad.spec import ObjectiveKind, Result, Spec, VisualizationTemplate
from proxygrad.spec.langevin import LangevinSettings
from proxygrad.spec.settings import Slope, slope_text

Typed = TypeVar("Typed", bound=VisualizationTemplate)

#: Options that are declared one by one.
_OF_THEIR_OWN = ("model", "layer", "objective", "position", "langevin")
#: Before the names of chains' settings.
_LANGEVIN = "langevin_"


def _number_or_name(word: str) -> float | str:
    """Of a setting that takes either; `Spec` says which."""
    try:
        return float(word)
    except ValueError:
        return word


_NUMBERS: dict[object, Callable[[str], object]] = {
    float: float,
    float | None: float,
    int: int,
    int | None: int,
    Slope: _number_or_name,
}


def add_question(parser: argparse.ArgumentParser) -> None:
    """MODEL LAYER UNIT and one option for each setting; what is not given keeps the default of `Spec`."""
    add_template(parser)
    parser.add_argument("unit", metavar="UNIT", type=int, help="index of the unit, from 0")


def add_template(parser: argparse.ArgumentParser) -> None:
    """The same but for UNIT."""
    parser.add_argument("model", metavar="MODEL", help="name of a model")
    parser.add_argument("layer", metavar="LAYER", help="name of a layer")
    parser.add_argument("--objective", choices=get_args(ObjectiveKind), help="default by the layer's kind")
    parser.add_argument("--position", type=int, nargs="+", metavar="N", help="row and column, or token")
    for name, field in VisualizationTemplate.model_fields.items():
        if name not in _OF_THEIR_OWN:
            _add_setting(parser, name, field)
    for name, field in LangevinSettings.model_fields.items():
        _add_setting(parser, _LANGEVIN + name, field)


def _add_setting(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    option = f"--{name.replace('_', '-')}"
    told = (field.description or "").partition(". ")[0].replace("`", "").replace("%", "%%")
    if field.annotation is bool:
        parser.add_argument(option, action="store_true", default=None, help=told)
        return
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
    """The `Spec` that was typed. Raises `InvalidRequest` naming each value that is out of its limits."""
    return _typed(Spec, arguments)


def template_from(arguments: argparse.Namespace) -> VisualizationTemplate:
    """The same but for the unit."""
    return _typed(VisualizationTemplate, arguments)


def _typed(kind: type[Typed], arguments: argparse.Namespace) -> Typed:
    given = {name: getattr(arguments, name) for name in kind.model_fields if name != "langevin"}
    chains = {name: getattr(arguments, _LANGEVIN + name) for name in LangevinSettings.model_fields}
    chains = {name: value for name, value in chains.items() if value is not None}
    given["langevin"] = chains or None
    try:
        return kind.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InvalidRequest("; ".join(_flaw(flaw) for flaw in error.errors())) from error


def _flaw(flaw: ErrorDetails) -> str:
    said = flaw["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, flaw["loc"]))
    return f"{place} {flaw['input']!r}: {said}" if place else said


def picture_paths(output: Path, result: Result) -> list[Path]:
    """A file for each picture of a result, by number: ``output``, or ``output`` with -0, -1, … before its
    suffix where there are several; with -baseline, and the number there, for plain ones.
    """
    count = max(1, len(result.images))
    roles = [result.image(number).role for number in range(count)]
    paths = []
    for number, role in enumerate(roles):
        kin = roles.count(role)
        mark = "-baseline" if role == "baseline" else ""
        mark += f"-{number - roles.index(role)}" if kin > 1 else ""
        paths.append(output.with_name(f"{output.stem}{mark}{output.suffix}"))
    return paths


def describe(result: Result) -> list[tuple[str, str]]:
    """What a person wants to know of a result, as (label, value) rows."""
    spec = result.spec
    where = f" at position {list(spec.position)}" if spec.position else ""
    shown = f"{result.width_px} x {result.height_px} px"
    return [
        ("unit", f"{spec.model} {spec.layer} {spec.unit}, {spec.objective}{where}"),
        ("achieved activation", f"{result.achieved_activation:.6g}"),
        ("start activation", f"{result.start_activation:.6g}"),
        ("stuck", "yes: no gradient to follow" if result.stuck else "no"),
        *_several(result),
        *_mixing(result),
        (
            "slope, steps, seed",
            f"{slope_text(spec.slope)}, {result.steps_done}, {result.image(result.best).seed}",
        ),
        ("image", f"{shown}, the best of {spec.images}" if spec.images > 1 else shown),
        (
            "computed",
            f"{result.ran_s:.2f} s on {result.device}, {result.dtype}, {result.steps_per_s:.0f} steps/s",
        ),
    ]


def _mixing(result: Result) -> list[tuple[str, str]]:
    """How well the chains have mixed."""
    found = result.sampling
    if found is None:
        return []
    size, r_hat = (
        "unknown" if value is None else f"{value:.4g}" for value in (found.effective_sample_size, found.r_hat)
    )
    chains = f"{len(found.chains)} of {found.draws} steps after the burn-in"
    return [("chains", chains), ("effective samples", size), ("R-hat", r_hat)]


def _several(result: Result) -> list[tuple[str, str]]:
    """The activations of several images, and of the plain ones beside them."""
    rows = []
    for label, role in (("of the images", "proxygrad"), ("of plain ascent", "baseline")):
        own = [f"{image.achieved_activation:.6g}" for image in result.images if image.role == role]
        if len(own) > 1 or (own and role == "baseline"):
            rows.append((label, ", ".join(own)))
    return rows
