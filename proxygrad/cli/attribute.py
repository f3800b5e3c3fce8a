"""``proxygrad attribute``: what made a unit respond to a picture, in this process, without any server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxygrad.cli.arguments import add_models
from proxygrad.errors import BadPicture, InvalidRequest, ProxyGradError
from proxygrad.spec import ObjectiveKind
from proxygrad.spec.attribution import (
    MAX_REFERENCES,
    AttributionMethod,
    AttributionResult,
    AttributionRule,
    AttributionSpec,
    AttributionTemplate,
    MissedShare,
    ReferenceName,
)

if TYPE_CHECKING:
    from proxygrad.pictures import DecodedPicture

HELP = "say which pixels of a picture made a unit respond, without a server"
EXTRA = "engine"

#: References by name: those of a request, but that files are named themselves.
NAMES = tuple(each for each in get_args(ReferenceName) if each != "uploaded")
#: Pictures with more pixels are refused before they are decoded.
MAX_PIXELS = 100_000_000
_SETTINGS = (
    *("objective", "position", "size_px", "method", "rule", "reference", "references", "seed"),
    *("at", "points"),
)


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
        "--reference",
        action="append",
        metavar="NAME",
        help="zeros (the default), mean, blurred, shuffled, a gray from 0 to 1, or the file of a picture; "
        "may be repeated: contributions are the mean",
    )
    parser.add_argument("--references", type=int, metavar="N", help="orders of pixels that shuffled takes")
    parser.add_argument("--seed", type=int, metavar="N", help="of shuffled")
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
    template, files = _template(arguments)
    from proxygrad.attribution.explanation import CONTRIBUTIONS, HEATMAP, OVERLAY, explain, pixels_of
    from proxygrad.models import Catalog
    from proxygrad.pictures import read_picture, stack

    data, sent = _read(arguments.picture), [(path, _read(path)) for path in files]
    network = Catalog.from_file(arguments.models).load(template.model, arguments.device)
    template = template.checked(network.info)
    channels, *own = network.input_shape
    size = (template.size_px, template.size_px) if template.size_px else (own[0], own[1])
    decoded = read_picture(data, channels, size, exact=template.size_px is not None, max_pixels=MAX_PIXELS)
    uploaded, images = None, None
    if sent:
        npy, images = stack(_references(sent, decoded))
        uploaded = pixels_of(npy)
    spec = AttributionSpec(**template.model_dump(), image=decoded.image, reference_images=images)
    explanation = explain(network, pixels_of(decoded.npy), spec.checked(network.info), uploaded)
    saved = {HEATMAP: arguments.output, OVERLAY: arguments.overlay, CONTRIBUTIONS: arguments.npy}
    for name, path in saved.items():
        if path is not None:
            _write(path, explanation.files[name])
    for label, value in described(explanation.result):
        print(f"{label:>20}  {value}")
    print(f"{'saved as':>20}  {', '.join(str(path) for path in saved.values() if path is not None)}")
    return 0


def _references(sent: list[tuple[Path, bytes]], picture: DecodedPicture) -> list[DecodedPicture]:
    from proxygrad.pictures import read_references

    found: list[DecodedPicture] = []
    for path, data in sent:
        try:
            found += read_references(data, picture, max_pixels=MAX_PIXELS, most=MAX_REFERENCES - len(found))
        except BadPicture as error:
            raise BadPicture(f"reference {path}: {error}") from error
    return found


def _template(arguments: argparse.Namespace) -> tuple[AttributionTemplate, list[Path]]:
    """The request, and the files among its references."""
    given: dict[str, Any] = {name: getattr(arguments, name) for name in ("model", "layer", "unit")}
    given |= {name: value for name in _SETTINGS if (value := getattr(arguments, name)) is not None}
    listed, files = named_references(given.get("reference", ()))
    if listed:
        given["reference"] = listed
    try:
        return AttributionTemplate.model_validate(given), files
    except ValidationError as error:
        raise InvalidRequest(_flaw(error.errors()[0])) from error


def named_references(given: Sequence[str]) -> tuple[list[str | float], list[Path]]:
    """Names and grays, with ``uploaded`` for all files, and the files. Raises `InvalidRequest`."""
    listed, files = list[str | float](), list[Path]()
    for each in given:
        with suppress(ValueError):
            listed.append(float(each))
            continue
        if each not in NAMES and not Path(each).is_file():
            valid = f"{', '.join(NAMES)}, a gray from 0 to 1, or the file of a picture"
            raise InvalidRequest(f"unknown reference {each!r}; valid: {valid}")
        if each in NAMES:
            listed.append(each)
            continue
        files.append(Path(each))
        if "uploaded" not in listed:
            listed.append("uploaded")
    return listed, files


def _flaw(flaw: ErrorDetails) -> str:
    said = flaw["msg"].removeprefix("Value error, ")
    if not flaw["loc"]:
        return said
    name = flaw["loc"][0]
    if name == "reference":  # it says all
        return said
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
