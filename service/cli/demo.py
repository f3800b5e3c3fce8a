"""``proxygrad demo``: start a service, visualize one unit by both methods, compare, stop the service."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxygrad.errors import ProxyGradError
from proxygrad.spec import Result
from proxygrad.spec.settings import slope_text
from service.cli.serve import interruptible

if TYPE_CHECKING:
    from proxygrad.client import Client, Visualization

HELP = "start a service, visualize one unit over HTTP, stop the service"
EXTRA = "service,worker"

#: The logit of the digit 0: plain activation maximization runs out of gradient before it gets there.
REQUEST: dict[str, Any] = {"model": "digits", "layer": "fc", "unit": 0}


class NeedsKey(ProxyGradError):
    """The service requires a key, and none is set."""

    code = "unauthorized"


@dataclass(frozen=True)
class Showing:
    """One visualization of the comparison, and its image file."""

    title: str
    visualization: Visualization
    path: Path

    @property
    def result(self) -> Result:
        """Its measurements."""
        return self.visualization.result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the folder for the images."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("demo-output"),
        help="folder for the images (default %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare the method with plain activation maximization, for the same unit and budget."""
    from proxygrad.client import Client

    with (
        interruptible() as interrupted,
        _service(interrupted) as url,
        Client(url) as client,
        _explained_key(),
    ):
        showings = [
            _shown(client, "ProxyGrad", {}, arguments.output),
            _shown(client, "plain", {"slope": 0.0}, arguments.output),
        ]
    print(table(showings))
    return 0


@contextmanager
def _service(interrupted: threading.Event) -> Iterator[str]:
    """The address of a service: our own on a free port, or the one that has the data directory already."""
    from service.settings import ServiceSettings
    from service.stack.data_directory import HomeInUse
    from service.stack.supervisor import Stack

    local = {"PROXYGRAD_HOST": "127.0.0.1", "PROXYGRAD_PORT": "0", "PROXYGRAD_PUBLIC_URL": ""}
    environ = {**os.environ, **local}
    settings = ServiceSettings.from_env(environ)
    _say(f"starting the gateway, one worker and Valkey (data and logs: {settings.home})")
    with ExitStack() as running:
        try:
            stack = Stack(settings, environ, settings.home / "logs", _say, interrupted)
            url = running.enter_context(stack).url
            _say(f"using the service at {url}")
        except HomeInUse as error:
            if error.url is None:
                raise
            url = error.url
            _say(f"a service runs there already; using it at {url}")
        yield url


@contextmanager
def _explained_key() -> Iterator[None]:
    """Turn the refusal of a missing key into `NeedsKey`, which names the environment variable."""
    from proxygrad.client import Unauthorized
    from proxygrad.client.config import ClientConfig

    try:
        yield
    except Unauthorized as error:
        if ClientConfig.of(None, None, os.environ).key is not None:
            raise
        raise NeedsKey(
            "the service requires a key, and none is set: set PROXYGRAD_API_KEY "
            "(`proxygrad keys create NAME` makes one)"
        ) from error


def _shown(client: Client, title: str, changes: dict[str, Any], folder: Path) -> Showing:
    from proxygrad.client import ProgressBar

    visualization = client.visualize(**REQUEST, **changes)
    if visualization.cached:
        _say(f"{title}: computed before, so the result comes from the store at once; nothing is computed")
    with ProgressBar(f"{title:<9}") as bar:
        visualization.wait(progress=False if visualization.cached else bar)
    path = folder / f"{'-'.join(str(part) for part in REQUEST.values())}-{title.lower()}.png"
    return Showing(title, visualization, visualization.save(path))


def table(showings: Sequence[Showing]) -> str:
    """The results side by side, one column for each visualization."""
    rows = [
        ("", *(f"{shown.title} (slope {slope_text(shown.result.spec.slope)})" for shown in showings)),
        ("achieved activation", *(f"{shown.result.achieved_activation:.4g}" for shown in showings)),
        ("start activation", *(f"{shown.result.start_activation:.4g}" for shown in showings)),
        ("stuck", *("yes" if shown.result.stuck else "no" for shown in showings)),
        ("steps", *(str(shown.result.steps_done) for shown in showings)),
        ("waited", *(f"{shown.visualization.snapshot.waited_s:.2f} s" for shown in showings)),
        ("ran", *(f"{shown.visualization.snapshot.ran_s or 0.0:.2f} s" for shown in showings)),
        (
            "result",
            *("from the store" if shown.visualization.cached else "computed now" for shown in showings),
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    unit = "unit {unit} of layer {layer!r} of model {model!r}".format(**REQUEST)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    images = [f"image of {shown.title}: {shown.path}" for shown in showings]
    return "\n".join(["", f"What excites {unit}:", "", *lines, "", *images])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
