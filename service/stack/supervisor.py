"""The whole service on one machine: Valkey, the gateway and one worker under one supervisor.

Valkey is left out when ``REDIS_URL`` names a server. The supervisor opens the listening socket itself and
hands it to the gateway, so a port in use is found before anything is started.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import httpx

from proxygrad.errors import ProxyGradError
from proxygrad.extras import lacks
from proxygrad.paths import make_private
from service.auth.keys import Keys
from service.server.sockets import address, listen
from service.settings import ServiceSettings
from service.stack.child_process import Backoff, Child
from service.stack.data_directory import claimed
from service.stack.valkey import EmbeddedValkey
from workers.broker.connection import connect, require_redis
from workers.fleet import catalog
from workers.settings import WorkerSettings
from workers.storage.store import Store

#: Longest time from the start of the children until the service answers. The worker imports torch and loads
#: every model: seconds on this machine, more on a cold disk.
START_LIMIT_S = 180.0
#: How long the worker drains after Ctrl-C where `PROXYGRAD_GRACE_S` does not say: somebody waits for the
#: prompt, and what does not fit goes on from its checkpoint at the next start.
WORKER_GRACE_S = 8.0
#: After that the worker is killed; a killed job is not lost, only late.
WORKER_EXIT_S = 3.0
#: The gateway lets go of long waits at once and of short requests in under a second.
GATEWAY_GRACE_S = 5.0
LOOK_S = 0.2


class StackError(ProxyGradError):
    """The stack could not be started, or one of its parts ended."""

    code = "stack_failed"


class NoKeys(StackError):
    """Keys are required and there are none, so that nobody could use the server."""

    code = "no_keys"


class Stack:
    """A context manager: ready to answer at ``url`` when entered, with every process gone when left.

    ``environ`` is what the children inherit; ``settings`` must come from it. ``log_directory`` receives
    what the children print; without one they print to the terminal. ``say`` is called with messages. Once
    ``interrupted`` is set, starting and supervising end with `KeyboardInterrupt`.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        environ: Mapping[str, str],
        log_directory: Path | None = None,
        say: Callable[[str], None] = print,
        interrupted: threading.Event | None = None,
    ) -> None:
        self.settings = settings
        self.url = ""
        self._environ = dict(environ)
        self._log_directory = log_directory
        self._say = say
        self._interrupted = interrupted or threading.Event()
        self._parts = ExitStack()
        self._valkey: EmbeddedValkey | None = None

    def __enter__(self) -> Stack:
        """Start everything; raises a `ProxyGradError` with everything stopped again."""
        with self._parts:
            self._start()
            self._parts = self._parts.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    def supervise(self) -> None:
        """Keep it up until interrupted. Starts a dead worker again; raises `StackError` for other parts."""
        backoff, started_s = Backoff(), time.monotonic()
        due_s: float | None = None
        while True:
            time.sleep(LOOK_S)
            self._check_foundation()
            now_s = time.monotonic()
            if due_s is None and self._worker.ended:
                pause_s = backoff.pause_s(now_s - started_s)
                due_s = now_s + pause_s
                self._say(f"{self._worker.obituary()}; starting it again in {pause_s:g} s")
            elif due_s is not None and now_s >= due_s:
                self._worker.start()
                due_s, started_s = None, now_s

    def _start(self) -> None:
        home = self.settings.home
        claim = self._parts.enter_context(claimed(home))
        listener = self._parts.enter_context(
            listen(self.settings.host, self.settings.port, "PROXYGRAD_PORT or --port")
        )
        self.url = address(listener)
        claim.announce(self.url)
        # Errors of a child's settings are better reported here than by the child, after a start.
        WorkerSettings.from_env(self._environ)
        Store.from_url(self.settings.store_url)
        if self._log_directory is not None:
            make_private(self._log_directory)
        redis_url = self._redis_url()
        _require_key(self.settings, redis_url, named_home=bool(self._environ.get("PROXYGRAD_HOME")))
        _require_worker()
        environment = self._environment(redis_url)
        self._gateway = self._child(
            "gateway", ["service", "--fd", str(listener.fileno())], environment, listener
        )
        grace_s = environment.get("PROXYGRAD_GRACE_S") or f"{WORKER_GRACE_S:g}"
        self._worker = self._child("worker", ["workers"], {**environment, "PROXYGRAD_GRACE_S": grace_s})
        self._begin(self._gateway, GATEWAY_GRACE_S)
        self._begin(self._worker, _seconds(grace_s) + WORKER_EXIT_S)
        self._until_ready()

    def _redis_url(self) -> str:
        if self.settings.redis_url:
            require_redis(self.settings.redis_url)
            return self.settings.redis_url
        self._valkey = self._parts.enter_context(EmbeddedValkey(self.settings.home / "valkey"))
        with connect(self._valkey.url) as redis:
            # Nobody else works with this server: who is still published was killed with its supervisor.
            for worker in catalog.live_workers(redis):
                catalog.withdraw(redis, worker)
        return self._valkey.url

    def _environment(self, redis_url: str) -> dict[str, str]:
        """What the children inherit: the same settings, and the package where this process found it."""
        root = str(Path(__file__).resolve().parents[2])
        paths = [path for path in (self._environ.get("PYTHONPATH"),) if path]
        if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
            paths.insert(0, root)
        environment = {**self._environ, "REDIS_URL": redis_url, "PYTHONPATH": os.pathsep.join(paths)}
        return environment if paths else {key: environment[key] for key in environment if key != "PYTHONPATH"}

    def _child(
        self,
        name: str,
        module: list[str],
        environment: Mapping[str, str],
        listener: socket.socket | None = None,
    ) -> Child:
        # -P: a folder called `service` where the user stands must not be taken for this package.
        command = [sys.executable, "-P", "-m", *module]
        log = None if self._log_directory is None else self._log_directory / f"{name}.log"
        return Child(name, command, environment, log, [] if listener is None else [listener.fileno()])

    def _begin(self, child: Child, grace_s: float) -> None:
        self._parts.callback(child.stop, grace_s)
        child.start()

    def _until_ready(self) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        with httpx.Client(base_url=self.url, timeout=LOOK_S * 10, trust_env=False) as http:
            while time.monotonic() < deadline_s:
                self._check_foundation()
                if self._worker.ended:
                    raise StackError(f"{self._worker.obituary()} before it was ready")
                with suppress(httpx.TransportError):
                    if http.get("/readyz").is_success:
                        return
                time.sleep(LOOK_S / 2)
        raise StackError(f"the service at {self.url} was not ready within {START_LIMIT_S:g} s")

    def _check_foundation(self) -> None:
        if self._interrupted.is_set():
            raise KeyboardInterrupt
        if self._valkey is not None and not self._valkey.running:
            raise StackError(f"the embedded Valkey ended; its log is {self._valkey.log_path}")
        if self._gateway.ended:
            raise StackError(self._gateway.obituary())


def _require_worker() -> None:
    """Whether a worker could run is better known before anything starts. This process imports no torch."""
    if find_spec("torch") is None:
        missing = ModuleNotFoundError(name="torch")
        raise StackError(lacks(missing, "service,worker"))


def _seconds(text: str) -> float:
    """A number of seconds; one that is none is for the worker to complain about."""
    with suppress(ValueError):
        return float(text)
    return WORKER_GRACE_S


def _require_key(settings: ServiceSettings, redis_url: str, *, named_home: bool) -> None:
    """Where every request needs a key somebody must have one, or nobody could ask anything.

    ``named_home``: the keys are in a data directory that another command finds only when it is told.
    """
    if not settings.keys_required:
        return
    with connect(redis_url, retries=1) as redis:
        if not Keys(redis).all().in_force:
            where = (
                f" --home {shlex.quote(str(settings.home))}" if named_home and not settings.redis_url else ""
            )
            raise NoKeys(
                f"every request to {settings.host!r} needs a key, and none has been made; make one with "
                f"`proxygrad keys create NAME{where}`, or listen on 127.0.0.1 without PROXYGRAD_REQUIRE_KEYS "
                "and PROXYGRAD_PUBLIC_URL"
            )
