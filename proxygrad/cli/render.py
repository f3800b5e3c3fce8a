"""``proxygrad render``: one visualization in this process, without any server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from proxygrad.cli.arguments import add_models, add_question, describe, picture_paths, spec_from
from proxygrad.errors import ProxyGradError

if TYPE_CHECKING:
    from torch import Tensor

    from proxygrad.engine.future import RenderFuture

HELP = "render a unit in this process, without a server"
EXTRA = "engine"

#: Seconds between two looks at the lane's progress; a progress bar needs no more.
REFRESH_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL LAYER UNIT, the settings of a `Spec`, and where to write."""
    add_question(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out.png"),
        help="PNG to write, default out.png; of several images out-0.png and so on, of plain ones to compare "
        "with out-baseline.png",
    )
    parser.add_argument("--grid", type=Path, metavar="FILE", help="also write all images as one PNG")
    parser.add_argument(
        "--animation", type=Path, metavar="FILE", help="also write all images in turn as WebP"
    )
    add_models(parser)
    parser.add_argument("--device", default="cpu", help="torch device, e.g. cpu or cuda:0; default cpu")


def run(arguments: argparse.Namespace) -> int:
    """Load the model, run the engine with a progress bar, write the PNGs and print what was achieved."""
    spec = spec_from(arguments)
    from proxygrad.engine.engine import Engine
    from proxygrad.images import decode_png, save_animation
    from proxygrad.models import Catalog

    network = Catalog.from_file(arguments.models).load(spec.model, arguments.device)
    with Engine() as engine:
        rendering = _follow(engine.submit(network, spec)).result()
    paths = picture_paths(arguments.output, rendering.result)
    for path, png in zip(paths, rendering.images, strict=True):
        _write(path, png)
    for extra, write in ((arguments.grid, _grid), (arguments.animation, save_animation)):
        if extra is not None:
            write([decode_png(png) for png in rendering.images], extra)
            paths.append(extra)
    for label, value in describe(rendering.result):
        print(f"{label:>20}  {value}")
    print(f"{'saved as':>20}  {', '.join(map(str, paths))}")
    for note in network.info.notes:
        print(f"{'note':>20}  {note}")
    return 0


def _follow(ticket: RenderFuture) -> RenderFuture:
    from tqdm import tqdm

    with tqdm(total=ticket.progress.steps, unit="step", leave=False) as bar:
        while not ticket.wait(REFRESH_S):
            bar.update(ticket.progress.step - bar.n)
    return ticket


def _grid(images: list[Tensor], path: Path) -> None:
    from proxygrad.images import grid

    grid(images).save(path)


def _write(path: Path, png: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    except OSError as error:
        raise ProxyGradError(f"cannot write {path}: {error.strerror or error}") from error
