"""``proxygrad submit``: request the visualization of a unit from a service, wait, save the images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxygrad.cli.arguments import add_question, describe, picture_paths, spec_from
from proxygrad.cli.client_options import add_client_options, connected, interruptible_wait

if TYPE_CHECKING:
    from proxygrad.client import Visualization

HELP = "visualize a unit with a running service"
EXTRA = "client"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the spec, the service and the output file."""
    add_question(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="image file to write: .png, .webp or .npy (default MODEL-LAYER-UNIT.png)",
    )
    add_client_options(parser, "the image")


def run(arguments: argparse.Namespace) -> int:
    """Submit, wait, save, report. Ctrl-C leaves the job running: the same command joins it again."""
    from proxygrad.client.files import image_format

    spec = spec_from(arguments)
    output = arguments.output or Path(f"{spec.model}-{spec.layer}-{spec.unit}.png")
    image_format(output)  # fails before anything is computed
    saved: list[Path] = []
    with connected(arguments) as client:
        visualization = client.visualize(**spec.model_dump(mode="json", exclude_unset=True))
        if arguments.wait:
            with interruptible_wait(visualization.id):
                visualization.wait(progress=True)
            paths = picture_paths(output, visualization.result)
            saved = [visualization.save(path, number) for number, path in enumerate(paths)]
    if arguments.json:
        print(visualization.snapshot.model_dump_json(indent=2))
    elif arguments.wait:
        print(report(visualization, saved))
    else:
        print(f"{visualization.id} {visualization.state}")
    return 0


def report(visualization: Visualization, saved: Sequence[Path]) -> str:
    """The result, one value a line."""
    snapshot = visualization.snapshot
    computed = f"after {snapshot.ran_s or 0.0:.2f} s of work"
    rows = [
        *describe(visualization.result),
        ("waited", f"{snapshot.waited_s:.2f} s"),
        ("result", "at once, from the store" if visualization.cached else computed),
        ("id", snapshot.id),
        *(("picture", str(path)) for path in saved),
    ]
    return "\n".join(f"{label:>20}  {value}" for label, value in rows)
