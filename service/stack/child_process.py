"""A child process that ends with its parent and can be restarted, with the backoff between restarts."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.stack.parent_death import die_with_parent

#: Pauses before a child that died is started again: doubled each time, back to the first after a quiet time.
FIRST_PAUSE_S, LONGEST_PAUSE_S, QUIET_S = 1.0, 30.0, 60.0


class Backoff:
    """How long to wait before a child that died is started again."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    def pause_s(self, lived_s: float) -> float:
        """Seconds to wait for one that lived for `lived_s` seconds."""
        if lived_s > QUIET_S:
            self._next_s = FIRST_PAUSE_S
        pause_s, self._next_s = self._next_s, min(self._next_s * 2, LONGEST_PAUSE_S)
        return pause_s


class Child:
    """A child process that can be started again after it ended.

    ``log`` is a file for what it prints; without one it prints to the terminal of its parent.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path | None = None,
        inherited_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._inherited_fds = tuple(inherited_fds)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, once it was started."""
        return None if self._process is None else self._process.pid

    @property
    def ended(self) -> bool:
        """True when it was started and is no more."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start it in a session of its own, so that a Ctrl-C in the terminal reaches the parent alone."""
        output = None if self.log is None else self.log.open("ab")
        try:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self._inherited_fds,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - it only sets a flag of the child
            )
        finally:
            if output is not None:
                output.close()

    def stop(self, grace_s: float) -> None:
        """Ask it to end (SIGTERM), wait up to `grace_s` seconds, then kill it. Harmless when it has ended."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(grace_s)
        except (
            BaseException
        ) as error:  # Also when the user will not wait any longer: it must not stay behind.
            self._process.kill()
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def obituary(self) -> str:
        """How it ended, in words, with where to read more."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            how = f"the {self.name} is running"
        elif code < 0:
            how = f"the {self.name} was ended by {signal.Signals(-code).name}"
        else:
            how = f"the {self.name} ended with exit status {code}"
        return how if self.log is None else f"{how}; {self._last_words()}its log is {self.log}"

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n") if self.log and self.log.exists() else []
        written = [line.strip() for line in lines if line.strip()]
        return f"its last line was {written[-1]!r}; " if written else ""
