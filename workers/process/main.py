"""`python -m workers`: one process with one engine, some slots, and a janitor, until it is stopped."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis

from proxygrad.errors import ProxyGradError
from workers import logs
from workers.batches import expander
from workers.batches.expander import BatchExpander
from workers.broker.connection import WORKER_CONNECTIONS, connect, require_redis
from workers.broker.safety import unsafe_settings
from workers.errors import SettingsError
from workers.execution.context import WorkerContext
from workers.execution.drain import FAULT_STATUS, Drain, end_now
from workers.fleet import catalog
from workers.jobs.commands import FORGET_INTERVAL_S
from workers.process.periodic import PeriodicThread
from workers.process.signals import drain_on_signals
from workers.queue import leases
from workers.queue.janitor import SWEEP_S, TIDY_S, Janitor
from workers.settings import WorkerSettings
from workers.storage import collector as retention
from workers.storage.store import Store

if TYPE_CHECKING:
    from proxygrad.engine.engine import Engine
    from workers.models.model_cache import ModelCache
    from workers.process.slots import SlotPool

#: How often a process that drains looks whether its slots have ended.
LOOK_S = 0.05
#: For each last word to Redis; with Redis away it would go on for minutes.
FAREWELL_S = 0.5

_log = logging.getLogger("workers")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a worker; its exit status. What is wrong with the settings is said in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m workers",
        description="Compute visualizations from the queue. Settings are environment variables: REDIS_URL, "
        "PROXYGRAD_HOME, PROXYGRAD_STORE, PROXYGRAD_MODELS, PROXYGRAD_SLOTS, PROXYGRAD_DEVICE, and others: "
        "docs/configuration.md. SIGTERM or Ctrl-C: finish what fits into PROXYGRAD_GRACE_S, put the rest "
        "back; a second one: put everything back at once.",
    )
    parser.parse_args(arguments)
    form = logs.format_of(environ)
    logs.configure(form)
    try:
        settings = WorkerSettings.from_env(environ)
        drain = Drain(settings.grace_s)
        drain_on_signals(drain)
        return work(settings, drain)
    except ProxyGradError as error:
        return logs.fail(error, form)


def work(settings: WorkerSettings, drain: Drain) -> int:
    """Serve the models until ``drain`` has begun, and drain; the exit status.

    Raises `SettingsError`, `QueueUnavailable`, `StorageError`, or `ModelError` for a bad models file.
    """
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL is not set; valid: redis://host:port/0, rediss://…, unix:///path")
    require_redis(settings.redis_url)
    with connect(settings.redis_url) as client:
        for warning in unsafe_settings(client).values():
            _log.warning("%s", warning)
    store = Store.from_url(settings.store_url)
    with leaving_at_once(drain):
        engine, models = prepare(settings)
    from workers.models.model_cache import RETRY_S

    with commands_to(settings.redis_url) as redis, listening_to(settings.redis_url) as listening:
        runtime = WorkerContext(worker_name(), redis, store, engine, models, drain, settings.stall_s)
        keep = retention.RetentionPolicy(settings.keep_days, settings.keep_gb)
        collector = retention.GarbageCollector(redis, store, keep, runtime.stopping)
        more = [
            PeriodicThread("collector", collector.round, retention.ROUND_S, runtime.stopping),
            PeriodicThread("forgetting", runtime.jobs.forget_stopped, FORGET_INTERVAL_S, runtime.stopping),
            PeriodicThread("models", models.recover, RETRY_S, runtime.stopping),
        ]
        return serve(runtime, settings.slots, listening, engine.close, more)


@contextmanager
def leaving_at_once(drain: Drain) -> Iterator[None]:
    """Within, a process that is told to stop ends: importing torch and loading models takes seconds."""
    over = threading.Event()

    def leave() -> None:
        drain.begun.wait()
        if not over.is_set():
            end_now(0)

    threading.Thread(target=leave, name="leave", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def prepare(settings: WorkerSettings) -> tuple[Engine, ModelCache]:
    """A running engine and the models to ask about. Raises `SettingsError` or `ModelError`."""
    import torch

    from proxygrad.engine.engine import Engine
    from proxygrad.models import Catalog
    from workers.models.model_cache import ModelCache
    from workers.process.device import choose, choose_precision, memory_budget

    device = choose(settings.device)
    precision = choose_precision(settings.precision, device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    catalog = Catalog.from_file(settings.models_path)
    budget_bytes = memory_budget(settings.model_memory_mb, device)
    models = ModelCache.open(catalog, device, budget_bytes, settings.home / "models")
    # On CUDA the engine finds out how many images its memory takes.
    engine = Engine(settings.slots if device == "cpu" else None, precision)
    return engine.start(), models


def commands_to(url: str) -> redis.Redis:
    """The client that all threads of a process share."""
    return connect(url, connections=WORKER_CONNECTIONS)


def listening_to(url: str) -> redis.Redis:
    """The client of the listener."""
    return connect(url, retries=0, connections=1)


def serve(
    runtime: WorkerContext,
    slots: int,
    listening: redis.Redis,
    close: Callable[[], object] = lambda: None,
    more: Sequence[PeriodicThread] = (),
) -> int:
    """Take jobs in ``slots`` slots until ``runtime.drain`` has begun, and drain; the exit status.

    ``more`` goes round meanwhile. ``close`` is called at the end, unless something hangs: then the process
    ends here.
    """
    from workers.process.heartbeat import Heartbeat
    from workers.process.listener import Listener
    from workers.process.slots import SlotPool

    taking, ended = SlotPool(runtime, slots), threading.Event()
    beat = PeriodicThread("beat", Heartbeat(runtime, taking).round, leases.BEAT_S, ended)
    listener = Listener(listening, runtime, taking, ended)
    runtime.catalog_entry.publish()
    taking.start()
    for thread in (beat, listener, *_rounds(runtime), *more):
        thread.start()
    _log.info("worker %s: %d slots", runtime.worker, slots)
    runtime.stopping.wait()
    whole = _drain(runtime, taking)
    ended.set()
    status = 0 if runtime.drain.fault is None else FAULT_STATUS
    closing = threading.Thread(target=close, name="close", daemon=True)
    closing.start()
    closing.join(FAREWELL_S)
    if not whole or closing.is_alive():
        end_now(status)
    return status


def _rounds(runtime: WorkerContext) -> list[PeriodicThread]:
    """What every worker does for all of them, and its word of what it serves."""
    janitor = Janitor(runtime.redis)
    expansion = BatchExpander(
        runtime.redis, runtime.jobs, runtime.models, runtime.stopping, runtime.batches_told
    )
    return [
        PeriodicThread("catalog", runtime.catalog_entry.publish, catalog.RENEW_S, runtime.stopping),
        PeriodicThread("janitor", janitor.sweep, SWEEP_S, runtime.stopping),
        PeriodicThread("books", janitor.tidy, TIDY_S, runtime.stopping),
        PeriodicThread("batches", expansion.round, expander.LOOK_S, runtime.stopping),
    ]


def _drain(runtime: WorkerContext, taking: SlotPool) -> bool:
    """Take nothing more, and see all slots end within the grace period; whether they did."""
    drain = runtime.drain
    _log.info("worker %s stops%s", runtime.worker, f": {drain.fault}" if drain.fault else "")
    farewell = threading.Thread(target=runtime.catalog_entry.withdraw, daemon=True)
    farewell.start()
    stop = threading.Thread(target=taking.stop, daemon=True)
    stop.start()
    while not taking.join(LOOK_S) and drain.left_s > 0:
        pass
    stop.join(FAREWELL_S)
    whole = taking.join(0)
    if not whole:
        _log.warning("some slots did not end in time; their jobs are put back")
        abandon = threading.Thread(target=taking.abandon, daemon=True)
        abandon.start()
        abandon.join(FAREWELL_S)
    farewell.join(FAREWELL_S)
    return whole


def worker_name() -> str:
    """Host, process and a few random digits: in a container every process has number 1."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
