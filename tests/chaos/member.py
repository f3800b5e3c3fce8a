"""One process of the service, as a supervisor sees it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from proxygrad.version import ENGINE_VERSION
from service.stack.parent_death import die_with_parent

#: The worker of a version with another method: the same requests have other ids.
NEXT_ENGINE = f"{int(ENGINE_VERSION) + 1}"
NEXT_VERSION = f"""
import os, sys
from proxygrad import version
version.ENGINE_VERSION = {NEXT_ENGINE!r}
from workers.process.main import main
sys.exit(main([], os.environ))
"""

REPOSITORY = Path(__file__).resolve().parents[2]


class Member:
    """A process that is to be there, and that is started again ``away_s`` after its end.

    ``expected`` holds the exit statuses that a fault accounts for.
    """

    def __init__(self, name: str, module: str, environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.expected: set[int] = set()
        self.paused = False
        self.away_s = 1.0
        self.draining_since: float | None = None
        #: Whether it starts as the next version.
        self.upgraded = False
        self._module = module
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def runs(self, worker: str) -> bool:
        """Whether it is the one of that name in the queue."""
        return self._process is not None and f"-{self.pid}-" in worker

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        return self._process is not None and self.status is None

    @property
    def free(self) -> bool:
        """Whether no other fault has hold of it."""
        return self.running and not self.paused and self.draining_since is None

    def start(self) -> None:
        self.expected, self.paused, self.away_s, self.draining_since = set(), False, 1.0, None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *(("-c", NEXT_VERSION) if self.upgraded else ("-m", self._module))],
                cwd=REPOSITORY,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - it only sets a flag of the child
            )

    def send(self, number: signal.Signals) -> None:
        """Harmless when it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, limit_s: float) -> int | None:
        """Its exit status; killed where it has not ended by then."""
        if self._process is None:
            return None
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
