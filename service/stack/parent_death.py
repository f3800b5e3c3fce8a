"""Processes that end when the one that started them does, however it ends.

On Linux the kernel sees to that. Elsewhere a shell stands between: it waits on a pipe whose other end the
parent holds, and which the system closes with the parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

ON_LINUX = sys.platform.startswith("linux")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Runs "$@" and ends it when standard input does: when the parent closed the pipe, or died.
_WATCH = """
exec 3<&0
"$@" 3<&- </dev/null & child=$!
{ cat <&3 >/dev/null; kill "$child" 2>/dev/null; } &
exec 3<&- </dev/null
wait "$child"
"""


def die_with_parent() -> Callable[[], None] | None:
    """What `subprocess.Popen(preexec_fn=…)` needs so that the child ends with the calling *thread*, on Linux.

    The kernel sends SIGTERM when the thread that started the child ends, so start children from a thread that
    lives as long as they shall. None where there is no such thing.
    """
    if not ON_LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl  # before the fork: nothing may be loaded after it
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return bind


class BoundProcess:
    """A quiet process that ends with this one; started at once. Raises `OSError` when it cannot be.

    ``keep_fd`` stays open in it. ``watched`` picks the way that works without Linux.
    """

    def __init__(self, command: Sequence[str], *, keep_fd: int, watched: bool = not ON_LINUX) -> None:
        self._watched = watched
        self._command = ["/bin/sh", "-c", _WATCH, "sh", *command] if watched else list(command)
        self._keep_fd = keep_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        settled = threading.Event()
        # The kernel ties a child to the thread that started it: this one lives as long as the child.
        threading.Thread(target=self._live, args=(settled,), name=command[0], daemon=True).start()
        settled.wait()
        if self._error is not None:
            raise self._error

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self, limit_s: float) -> None:
        """Ask it to end, wait up to ``limit_s`` seconds, then kill it. Harmless when it has ended."""
        process = self._process
        assert process is not None, "a process that could not be started has raised"
        if process.stdin is not None:
            process.stdin.close()
        elif process.poll() is None:
            process.terminate()
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _live(self, settled: threading.Event) -> None:
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE if self._watched else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._keep_fd],
                start_new_session=True,  # a Ctrl-C in the terminal is for us, not for the child
                umask=0o077,  # its files are for this user alone
                preexec_fn=None if self._watched else die_with_parent(),  # noqa: PLW1509 - one system call
            )
        except OSError as error:
            self._error = error
        settled.set()
        if self._process is not None:
            self._process.wait()
