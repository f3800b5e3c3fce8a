"""``proxygrad batch``: ask a running service about many units of a layer, save the contact sheet."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxygrad.cli.arguments import add_template, template_from
from proxygrad.errors import InvalidRequest
from proxygrad.protocol.batches import DEFAULT_CELL_PX, MAX_CELL_PX, MIN_CELL_PX, most_columns
from service.cli.client_options import add_following, asking, going_on

if TYPE_CHECKING:
    from service.client import Batch
    from service.client._async.batches import Units

HELP = "ask a running service for pictures of many units of a layer"

_RANGE = re.compile(r"(\d+)-(\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the units, what is asked of each, where to ask and where to save."""
    add_template(parser)
    parser.add_argument(
        "--units", type=_units, default="all", help="all (default), a range as 0-63, or some as 1,5,9"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where to save the contact sheet: .png or .webp (default MODEL-LAYER.png)",
    )
    parser.add_argument("--columns", type=int, metavar="N", help="pictures side by side in the contact sheet")
    parser.add_argument("--width", type=int, metavar="N", help="pixels that each of them is wide")
    add_following(parser, "all pictures")


def run(arguments: argparse.Namespace) -> int:
    """Ask, follow, save what pictures there are, report; 1 where a unit has none. Ctrl-C leaves it going."""
    from service.client.files import sheet_format_of

    template = template_from(arguments)
    output = arguments.output or Path(f"{template.model}-{template.layer}.png")
    sheet_format_of(output)  # before anything is computed
    _check_sheet(arguments.columns, arguments.width)
    saved: list[Path] = []
    with asking(arguments) as client:
        given = template.model_dump(mode="json", exclude_unset=True)
        batch = client.batch(units=arguments.units, **given)
        if arguments.wait:
            with going_on(batch.id):
                batch.wait(progress=True, check=False)
            if batch.counts.succeeded:
                saved = batch.save(output, columns=arguments.columns, width=arguments.width)
        told = batch.answer.model_dump_json(indent=2) if arguments.json else report(batch, saved)
    print(told)
    return int(batch.state in ("failed", "canceled"))


def report(batch: Batch, saved: Sequence[Path]) -> str:
    """How it stands, a line for each value, and for each of the first units that failed."""
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
    found = []
    for one in batch.visualizations(state="failed"):
        found.append((one.unit, one.problem.detail if one.problem else "failed"))
        if len(found) == most:
            break
    return found


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
