"""``proxygrad submit``: ask a running service, follow the job, save the picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxygrad.cli.arguments import add_question, describe, picture_paths, spec_from
from service.cli.client_options import add_following, asking, going_on

if TYPE_CHECKING:
    from service.client import Visualization

HELP = "ask a running service for a picture of a unit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the question, where to ask and where to save."""
    add_question(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where to save the picture: .png, .webp or .npy (default MODEL-LAYER-UNIT.png)",
    )
    add_following(parser, "the picture")


def run(arguments: argparse.Namespace) -> int:
    """Ask, follow, save, report. Ctrl-C leaves the job as it is: asked again, it is joined."""
    from service.client.files import format_of

    spec = spec_from(arguments)
    output = arguments.output or Path(f"{spec.model}-{spec.layer}-{spec.unit}.png")
    format_of(output)  # before anything is computed
    saved: list[Path] = []
    with asking(arguments) as client:
        asked = client.visualize(**spec.model_dump(mode="json", exclude_unset=True))
        if arguments.wait:
            with going_on(asked.id):
                asked.wait(progress=True)
            places = picture_paths(output, asked.result)
            saved = [asked.save(place, number) for number, place in enumerate(places)]
    if arguments.json:
        print(asked.answer.model_dump_json(indent=2))
    elif arguments.wait:
        print(report(asked, saved))
    else:
        print(f"{asked.id} {asked.state}")
    return 0


def report(asked: Visualization, saved: Sequence[Path]) -> str:
    """What came out, a line for each value."""
    answer = asked.answer
    stored = asked.answered_at_once
    rows = [
        *describe(asked.result),
        ("waited", f"{answer.waited_s:.2f} s"),
        ("answered", "at once, from the store" if stored else f"after {answer.ran_s or 0.0:.2f} s of work"),
        ("id", answer.id),
        *(("picture", str(place)) for place in saved),
    ]
    return "\n".join(f"{label:>20}  {value}" for label, value in rows)
