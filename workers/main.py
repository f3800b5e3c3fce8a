"""`python -m workers`: one process with one engine, some slots, and a janitor, until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType

from proxygrad.errors import ProxyGradError
from workers import catalog, leases
from workers.catalog import ServedModel
from workers.errors import SettingsError
from workers.recovery import SWEEP_S, TIDY_S, Janitor
from workers.rounds import Rounds
from workers.runtime import Runtime
from workers.settings import Settings, connect, require_redis
from workers.storage import Store

#: From the signal to the end: running jobs are put back within `workers.render.PROGRESS_S`, idle slots notice
#: within `workers.slots.POP_WAIT_S`. What is not done by then is left to the janitors of other workers.
STOP_LIMIT_S = 5.0

_log = logging.getLogger("workers")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a worker; its exit status. What is wrong with the settings is said in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m workers",
        description="Compute visualizations from the queue. Settings are environment variables: REDIS_URL, "
        "PROXYGRAD_HOME, PROXYGRAD_STORE, PROXYGRAD_MODELS, PROXYGRAD_SLOTS, PROXYGRAD_DEVICE.",
    )
    parser.parse_args(arguments)
    log_to_stderr()
    try:
        work(Settings.from_env(environ), stop_on_signals())
    except ProxyGradError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def log_to_stderr() -> None:
    """One line for whatever an operator wants to know."""
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=form, datefmt="%H:%M:%S")


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second signal ends the process as usual."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping


def work(settings: Settings, stopping: threading.Event) -> None:
    """Serve the models until ``stopping`` is set.

    Raises `SettingsError`, `QueueUnavailable`, `StorageError`, or `ModelError` for a bad models file.
    """
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL is not set; valid: redis://host:port/0, rediss://…, unix:///path")
    require_redis(settings.redis_url)
    store = Store.from_url(settings.store_url)
    # Importing torch takes seconds: what can be wrong without it has been said by now.
    from proxygrad.engine import Engine
    from proxygrad.models import Catalogue
    from workers.device import choose
    from workers.shelf import Shelf

    device = choose(settings.device)
    shelf = Shelf.load(Catalogue.from_file(settings.models_path), device)
    with Engine(max_lanes=settings.slots) as engine, connect(settings.redis_url) as redis:
        serve(Runtime(worker_name(), redis, store, engine, shelf, stopping), shelf.served, settings.slots)


def serve(runtime: Runtime, models: Sequence[ServedModel], slots: int) -> None:
    """Take jobs in ``slots`` slots, and publish ``models``, until ``runtime.stopping`` is set."""
    from workers.slots import Slots

    taking, janitor = Slots(runtime, slots), Janitor(runtime.redis)
    rounds = [
        Rounds("catalogue", lambda: _publish(runtime, models), catalog.RENEW_S, runtime.stopping),
        Rounds("beat", taking.beat, leases.BEAT_S, runtime.stopping),
        Rounds("janitor", janitor.sweep, SWEEP_S, runtime.stopping),
        Rounds("books", janitor.tidy, TIDY_S, runtime.stopping),
    ]
    catalog.publish(runtime.redis, runtime.worker, models)
    taking.start()
    for thread in rounds:
        thread.start()
    _log.info("worker %s: %d slots", runtime.worker, slots)
    runtime.stopping.wait()
    _log.info("worker %s stops", runtime.worker)
    farewell = threading.Thread(target=catalog.withdraw, args=(runtime.redis, runtime.worker), daemon=True)
    farewell.start()
    if not taking.join(STOP_LIMIT_S):
        _log.warning("some jobs did not stop within %g s; other workers take them over", STOP_LIMIT_S)
    farewell.join(1.0)  # no longer: with Redis away it would go on for minutes


def _publish(runtime: Runtime, models: Sequence[ServedModel]) -> None:
    if not runtime.stopping.is_set():
        catalog.publish(runtime.redis, runtime.worker, models)


def worker_name() -> str:
    """Host, process and a few random digits: in a container every process has number 1."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
