"""``proxygrad submit``: ask a running service, follow the job, save the picture."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from proxygrad.arguments import add_question, describe, spec_from
from proxygrad.errors import ProxyGradError

if TYPE_CHECKING:
    from service.client import Visualization

HELP = "ask a running service for a picture of a unit"
DEFAULT_SERVER = "http://127.0.0.1:8000"


class CannotSave(ProxyGradError):
    """The picture cannot be written where it was wanted."""

    code = "cannot_save"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the question, where to ask and where to save."""
    add_question(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where to save the PNG (default MODEL-LAYER-UNIT.png)",
    )
    parser.add_argument("--server", default=DEFAULT_SERVER, metavar="URL", help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Ask, follow, save, report."""
    from service.client import Client
    from service.commands.following import followed

    spec = spec_from(arguments)
    output = arguments.output or Path(f"{spec.model}-{spec.layer}-{spec.unit}.png")
    with Client(arguments.server) as client:
        asked = client.submit(**spec.model_dump(mode="json", exclude_unset=True))
        answer = followed(client, asked, f"{spec.model} {spec.layer} {spec.unit}")
        save(output, client.image(answer.id))
    if arguments.json:
        print(answer.model_dump_json(indent=2))
    else:
        print(report(answer, output, stored=asked.answered_at_once))
    return 0


def save(path: Path, png: bytes) -> None:
    """Write the picture, as a whole or not at all; raises `CannotSave` naming the place."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(png)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise CannotSave(f"cannot write the picture to {str(path)!r}: {error.strerror or error}") from error


def report(answer: Visualization, output: Path, *, stored: bool) -> str:
    """What came out, a line for each value; `stored` when it was there before it was asked for."""
    assert answer.result is not None
    rows = [
        *describe(answer.result),
        ("waited", f"{answer.waited_s:.2f} s"),
        ("answered", "at once, from the store" if stored else f"after {answer.ran_s or 0.0:.2f} s of work"),
        ("id", answer.id),
        ("picture", str(output)),
    ]
    return "\n".join(f"{label:>20}  {value}" for label, value in rows)
