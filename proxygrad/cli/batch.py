"""``proxygrad batch``: request many units of a layer from a service, wait, save the contact sheet."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from proxygrad.cli.arguments import add_template, template_from
from proxygrad.cli.client_options import add_client_options, connected, interruptible_wait
from proxygrad.errors import InvalidRequest
from proxygrad.protocol.batches import DEFAULT_CELL_PX, MAX_CELL_PX, MIN_CELL_PX, most_columns

if TYPE_CHECKING:
    from proxygrad.client import Batch
    from proxygrad.client.parameters import Units

HELP = "visualize many units of a layer with a running service"
EXTRA = "client"

_RANGE = re.compile(r"(\d+)-(\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the units, their template, the service and the output file."""
    add_template(parser)
    parser.add_argument(
        "--units",
        type=_units,
        default="all",
        help="all (default), a range such as 0-63, or a list such as 1,5,9",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="contact sheet to write: .png or .webp (default MODEL-LAYER.png)",
    )
    parser.add_argument("--columns", type=int, metavar="N", help="columns of the contact sheet")
    parser.add_argument("--width", type=int, metavar="N", help="width of each image in pixels")
    add_client_options(parser, "all images")


def run(arguments: argparse.Namespace) -> int:
    """Submit, wait, save, report; 1 if a unit has no image. Ctrl-C leaves the batch running."""
    from proxygrad.client.files import atlas_format

    template = template_from(arguments)
    output = arguments.output or Path(f"{template.model}-{template.layer}.png")
    atlas_format(output)  # fails before anything is computed
    _check_sheet(arguments.columns, arguments.width)
    saved: list[Path] = []
    with connected(arguments) as client:
        fields = template.model_dump(mode="json", exclude_unset=True)
        batch = client.batch(units=arguments.units, **fields)
        if arguments.wait:
            with interruptible_wait(batch.id):
                batch.wait(progress=True, check=False)
            if batch.counts.succeeded:
                saved = batch.save(output, columns=arguments.columns, width=arguments.width)
        text = batch.snapshot.model_dump_json(indent=2) if arguments.json else report(batch, saved)
    print(text)
    return int(batch.state in ("failed", "canceled"))


def report(batch: Batch, saved: Sequence[Path]) -> str:
    """The counts, one value a line, and the first units that failed."""
    counts = batch.counts.model_dump()
    rows = [
        ("units", ", ".join(f"{count} {state}" for state, count in counts.items() if count)),
        ("id", batch.id),
        ("state", batch.state),
    ]
    rows += [("contact sheet", str(page)) for page in saved]
    if batch.problem is not None:
        rows.append(("problem", f"{batch.problem.detail} [{batch.problem.code}]"))
    if batch.counts.failed:
        rows += [(f"unit {unit}", why) for unit, why in _failed(batch)]
    return "\n".join(f"{label:>20}  {value}" for label, value in rows)


def _failed(batch: Batch, most: int = 10) -> list[tuple[int, str]]:
    """The first units that failed, and why."""
    failed = islice(batch.visualizations(state="failed"), most)
    return [(unit.unit, unit.problem.detail if unit.problem else "failed") for unit in failed]


def _check_sheet(columns: int | None, cell_px: int | None) -> None:
    """Raises `InvalidRequest`, before anything is computed."""
    _within("width", cell_px, range(MIN_CELL_PX, MAX_CELL_PX + 1))
    _within("columns", columns, range(1, most_columns(cell_px or DEFAULT_CELL_PX) + 1))


def _within(name: str, value: int | None, bounds: range) -> None:
    if value is not None and value not in bounds:
        raise InvalidRequest(f"{name} {value} is out of bounds; valid: {bounds[0]} to {bounds[-1]}")


def _units(text: str) -> Units:
    if text == "all":
        return "all"
    span = _RANGE.fullmatch(text)
    if span and int(span[1]) <= int(span[2]):
        return range(int(span[1]), int(span[2]) + 1)
    numbers = [part.strip() for part in text.split(",")]
    if all(number.isdecimal() for number in numbers):
        return [int(number) for number in numbers]
    raise argparse.ArgumentTypeError(f"{text!r}; valid: all, a range as 0-63, or numbers as 1,5,9")
