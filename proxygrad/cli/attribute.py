"""``proxygrad attribute``: what made a unit respond to a picture, in this process, without any server."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxygrad.cli.arguments import add_models
from proxygrad.errors import InvalidRequest, ProxyGradError
from proxygrad.spec import ObjectiveKind
from proxygrad.spec.attribution import (
    AttributionMethod,
    AttributionResult,
    AttributionRule,
    AttributionSpec,
    AttributionTemplate,
    MissedShare,
    ReferenceImage,
)

HELP = "say which pixels of a picture made a unit respond, without a server"
EXTRA = "engine"

#: Pictures with more pixels are refused before they are decoded.
MAX_PIXELS = 100_000_000
_SETTINGS = ("objective", "position", "size_px", "method", "rule", "reference", "at", "points")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL LAYER UNIT PICTURE, the settings of an `AttributionTemplate`, and where to write."""
    parser.add_argument("model", help="name of a model: digits, or one of models.toml")
    parser.add_argument("layer", help="dotted name of a layer")
    parser.add_argument("unit", type=int, help="channel of a feature map, or index in a vector, from 0")
    parser.add_argument("picture", type=Path, help="PNG, JPEG, WebP or NPY")
    parser.add_argument("--objective", choices=get_args(ObjectiveKind), help="default by the layer's kind")
    parser.add_argument("--position", type=int, nargs="+", metavar="N", help="row and column, or token")
    parser.add_argument("--size-px", type=int, metavar="N", help="side at which the network sees the picture")
    parser.add_argument("--method", choices=get_args(AttributionMethod), help="default deeplift")
    parser.add_argument("--rule", choices=get_args(AttributionRule), help="of deeplift; default auto")
    parser.add_argument(
        "--reference", metavar="NAME", help="zeros (the default), mean, blurred, or a gray from 0 to 1"
    )
    parser.add_argument("--at", metavar="LAYER", help="attribute to this layer in place of the pixels")
    parser.add_argument("--points", type=int, metavar="N", help="of integrated_gradients")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("heatmap.png"), help="heat map, default heatmap.png"
    )
    parser.add_argument("--overlay", type=Path, metavar="FILE", help="also write it over the picture")
    parser.add_argument("--npy", type=Path, metavar="FILE", help="also write the contributions as NPY")
    add_models(parser)
    parser.add_argument("--device", default="cpu", help="torch device, e.g. cpu or cuda:0; default cpu")


def run(arguments: argparse.Namespace) -> int:
    """Decode, attribute, write the files and print what was found."""
    template = _template(arguments)
    from proxygrad.attribution.explanation import CONTRIBUTIONS, HEATMAP, OVERLAY, explain, image_of
    from proxygrad.models import Catalog
    from proxygrad.pictures import read_picture

    data = _read(arguments.picture)
    network = Catalog.from_file(arguments.models).load(template.model, arguments.device)
    template = template.checked(network.info)
    channels, *own = network.input_shape
    size = (template.size_px, template.size_px) if template.size_px else (own[0], own[1])
    decoded = read_picture(data, channels, size, exact=template.size_px is not None, max_pixels=MAX_PIXELS)
    spec = AttributionSpec(**template.model_dump(), image=decoded.image)
    explanation = explain(network, image_of(decoded.npy), spec)
    saved = {HEATMAP: arguments.output, OVERLAY: arguments.overlay, CONTRIBUTIONS: arguments.npy}
    for name, path in saved.items():
        if path is not None:
            _write(path, explanation.files[name])
    for label, value in described(explanation.result):
        print(f"{label:>20}  {value}")
    print(f"{'saved as':>20}  {', '.join(str(path) for path in saved.values() if path is not None)}")
    return 0


def _template(arguments: argparse.Namespace) -> AttributionTemplate:
    given: dict[str, Any] = {name: getattr(arguments, name) for name in ("model", "layer", "unit")}
    given |= {name: value for name in _SETTINGS if (value := getattr(arguments, name)) is not None}
    with suppress(KeyError, ValueError):  # none, or a name
        given["reference"] = float(given["reference"])
    try:
        return AttributionTemplate.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(_flaw(error.errors()[0])) from error


def _flaw(flaw: ErrorDetails) -> str:
    said = flaw["msg"].removeprefix("Value error, ")
    if not flaw["loc"]:
        return said
    name = flaw["loc"][0]
    if name == "reference":  # each of its forms would say that it is not of that form
        said = f"valid: {', '.join(get_args(ReferenceImage))}, or a gray from 0 to 1"
    return f"{name} {flaw['input']!r}: {said}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProxyGradError(f"cannot read {path}: {error.strerror or error}") from error


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ProxyGradError(f"cannot write {path}: {error.strerror or error}") from error


def described(result: AttributionResult) -> list[tuple[str, str]]:
    """What is printed of a result, as labels and values."""
    delta = result.delta
    share = "" if delta.relative is None else f", {delta.relative:.2g} of the difference"
    rows = [
        ("value", f"{result.value:.6g}"),
        ("of the reference", f"{result.reference_value:.6g}"),
        ("delta", f"{delta.absolute:.2g}{share}"),
    ]
    if result.unruled:
        rows.append(("without a rule", ", ".join(map(_operation, result.unruled))))
    if result.logits:
        named = [f"{each.name or each.index} {each.value:.4g}" for each in result.logits[:3]]
        rows.append(("highest logits", ", ".join(named)))
    rows.append(("full color is", f"{result.scale:.4g}"))
    return rows + [("note", note) for note in result.notes]


def _operation(missed: MissedShare) -> str:
    where = f" in {missed.layer}" if missed.layer else ""
    return f"{missed.operation}{where} ({missed.share:.2g} of the difference)"
