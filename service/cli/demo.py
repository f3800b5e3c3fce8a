"""``proxygrad demo``: start everything, ask two questions over HTTP, show what came out, stop everything."""

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
from service.cli.serve import interruptible

if TYPE_CHECKING:
    from proxygrad.client import Client, Visualization

HELP = "start everything, make one picture over HTTP, stop everything"

#: The logit of the digit 0: plain activation maximization runs out of gradient before it gets there.
QUESTION: dict[str, Any] = {"model": "digits", "layer": "fc", "unit": 0}


class NeedsKey(ProxyGradError):
    """Keys are in force, and none was given."""

    code = "unauthorized"


@dataclass(frozen=True)
class Showing:
    """One answer and where its picture was saved."""

    title: str
    asked: Visualization
    picture: Path

    @property
    def result(self) -> Result:
        """What came out."""
        return self.asked.result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the pictures go."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("demo-output"),
        help="folder for the pictures (default %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the method beside plain activation maximization, for the same unit and budget."""
    from proxygrad.client import Client

    with interruptible() as interrupted, _service(interrupted) as url, Client(url) as client, _told_of_keys():
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

    environ = {**os.environ, "PROXYGRAD_HOST": "127.0.0.1", "PROXYGRAD_PORT": "0"}
    settings = ServiceSettings.from_env(environ)
    _say(f"starting the gateway, one worker and Valkey (data and logs: {settings.home})")
    with ExitStack() as running:
        try:
            stack = Stack(settings, environ, settings.home / "logs", _say, interrupted)
            url = running.enter_context(stack).url
            _say(f"asking the service at {url}")
        except HomeInUse as error:
            if error.url is None:
                raise
            url = error.url
            _say(f"a service runs there already; asking it at {url}")
        yield url


@contextmanager
def _told_of_keys() -> Iterator[None]:
    """Say where a key belongs: the demo has no argument for it. Of a wrong one the server says enough."""
    from proxygrad.client import Unauthorized
    from proxygrad.client.config import ClientConfig

    try:
        yield
    except Unauthorized as error:
        if ClientConfig.of(None, None, os.environ).key is not None:
            raise
        raise NeedsKey(
            "the service asks for a key, and none was given: set PROXYGRAD_API_KEY "
            "(`proxygrad keys create NAME` makes one)"
        ) from error


def _shown(client: Client, title: str, changes: dict[str, Any], folder: Path) -> Showing:
    from proxygrad.client import ProgressBar

    asked = client.visualize(**QUESTION, **changes)
    if asked.cached:
        _say(f"{title}: answered before, so the answer comes from the store at once; nothing is computed")
    with ProgressBar(f"{title:<9}") as bar:
        asked.wait(progress=False if asked.cached else bar)
    picture = folder / f"{'-'.join(str(part) for part in QUESTION.values())}-{title.lower()}.png"
    return Showing(title, asked, asked.save(picture))


def table(showings: Sequence[Showing]) -> str:
    """What came out, one column for each answer."""
    rows = [
        ("", *(f"{shown.title} (slope {shown.result.spec.slope:g})" for shown in showings)),
        ("achieved activation", *(f"{shown.result.achieved_activation:.4g}" for shown in showings)),
        ("start activation", *(f"{shown.result.start_activation:.4g}" for shown in showings)),
        ("stuck", *("yes" if shown.result.stuck else "no" for shown in showings)),
        ("steps", *(str(shown.result.steps_done) for shown in showings)),
        ("waited", *(f"{shown.asked.snapshot.waited_s:.2f} s" for shown in showings)),
        ("ran", *(f"{shown.asked.snapshot.ran_s or 0.0:.2f} s" for shown in showings)),
        (
            "answered",
            *("from the store" if shown.asked.cached else "computed now" for shown in showings),
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    question = "unit {unit} of layer {layer!r} of model {model!r}".format(**QUESTION)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    pictures = [f"picture of {shown.title}: {shown.picture}" for shown in showings]
    return "\n".join(["", f"What excites {question}:", "", *lines, "", *pictures])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
