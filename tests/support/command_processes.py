"""`proxygrad` commands as processes of their own, and which processes belong to them."""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from proxygrad.errors import ProxyGradError

REPOSITORY = Path(__file__).resolve().parents[2]

# As `proxygrad.cli.main` does, for one command, so that the package need not be installed.
_COMMAND = """
import argparse, importlib, sys
from proxygrad.errors import ProxyGradError
command = importlib.import_module("service.cli." + sys.argv[1])
parser = argparse.ArgumentParser()
command.add_arguments(parser)
try:
    sys.exit(command.run(parser.parse_args(sys.argv[2:])))
except ProxyGradError as error:
    sys.exit(f"error: {error}")
except KeyboardInterrupt:
    sys.exit(130)
"""


class Running:
    """A command that runs until it is told to stop."""

    def __init__(self, home: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        self.log = home.with_name(f"{home.name}-{time.monotonic_ns()}.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *arguments],
                env=environment(home, environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        """Everything it and its children have printed."""
        return self.log.read_text(errors="replace")

    def url(self, limit_s: float = 120) -> str:
        """Where it listens, once it says so."""
        return self.until(r"listens on (http://\S+)", limit_s)

    def until(self, pattern: str, limit_s: float = 60) -> str:
        """Wait until it has printed `pattern`, and give its group."""
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            if found := re.search(pattern, self.said):
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"{pattern} was not printed; instead:\n{self.said}")

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        family = {self.process.pid, *descendants(self.process.pid)}
        for pid in family:
            if is_alive(pid):
                os.kill(pid, 9)
        self.process.wait()


def run(
    home: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    command = [sys.executable, "-c", _COMMAND, *arguments]
    variables = environment(home, environ or {})
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


def called(
    home: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that ends before it has started anything, in this process: what `run` would give."""
    from service.cli import keys, serve

    name, *rest = arguments
    command = {"keys": keys, "serve": serve}[name]
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    variables = environment(home, environ or {})
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, variables, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            status = command.run(parser.parse_args(rest))
        except ProxyGradError as error:
            print(f"error: {error}", file=err)
            status = 1
        except SystemExit as end:  # argparse has said why
            status = int(end.code or 0)
    return subprocess.CompletedProcess([*arguments], status, out.getvalue(), err.getvalue())


def environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """What a newcomer's shell would have, the data directory, and `more`."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PROXYGRAD_", "REDIS_"))
    }
    own = {"PROXYGRAD_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return {**kept, **own, **more}


def descendants(pid: int) -> dict[int, str]:
    """The children of `pid` and theirs, with their command lines."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # It ended while we looked.
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found[child] = _command_line(child)
            waiting.append(child)
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has asked about since it ended does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def all_gone(pids: Mapping[int, str], limit_s: float) -> bool:
    """Whether all of `pids` have ended within `limit_s` seconds."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.02)
    return False
