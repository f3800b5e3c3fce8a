"""Runs stages, each in a process of its own, and keeps their reports in a cache."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.reproduction import cache, stages
from benchmarks.reproduction.cache import CachedReport
from benchmarks.reproduction.stage import Context, load_stage

#: Seconds between two looks at how far the stages are.
_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Runner:
    """Runs stages.

    ``folder``: of the cache. ``shared``: as in `Context`. ``jobs``: how many stages run at once.
    ``fresh``: run them although their reports are there.
    """

    folder: Path
    shared: Path | None
    quick: bool = False
    fresh: bool = False
    jobs: int = 2

    def run(self, names: Sequence[str]) -> tuple[dict[str, CachedReport], dict[str, str]]:
        """The reports of these stages; and of those without one, why there is none."""
        reports, reasons = dict[str, CachedReport](), dict[str, str]()
        waiting = []
        for name in names:
            found = None if self.fresh else cache.load(self.folder / name, self._key(name))
            if found is not None:
                reports[name] = found
            elif load_stage(name).needs_shared and self.shared is None:
                reasons[name] = "cannot be tested here: it needs the folder that PROXYGRAD_SHARED names"
            else:
                waiting.append(name)
        made, failed = self._compute(waiting)
        return reports | made, reasons | failed

    def _compute(self, names: Sequence[str]) -> tuple[dict[str, CachedReport], dict[str, str]]:
        reports, reasons = dict[str, CachedReport](), dict[str, str]()
        if not names:
            return reports, reasons
        spawn = multiprocessing.get_context("spawn")
        with (
            spawn.Manager() as manager,
            ProcessPoolExecutor(self.jobs, spawn, _leave_interrupts, max_tasks_per_child=1) as pool,
            _ended_with(pool),
            tqdm(
                total=len(names),
                disable=None,
                unit="stage",
                bar_format="{l_bar}{bar}| {n:.1f}/{total} {elapsed}{postfix}",
            ) as bar,
        ):
            told: queue.Queue[tuple[str, float, str]] = manager.Queue()
            futures = {
                name: pool.submit(
                    run_stage, name, self.folder, self._key(name), self.quick, self.shared, told
                )
                for name in names
            }
            _watch(futures, told, bar)
            for name, future in futures.items():
                error = future.exception()
                if error is None:
                    reports[name] = future.result()
                else:
                    reasons[name] = f"failed: {type(error).__name__}: {error}"
        return reports, reasons

    def _key(self, name: str) -> str:
        return cache.key_of(f"{stages.__name__}.{name}", self.quick, self.shared is not None)


def _leave_interrupts() -> None:
    """In a stage's process: Ctrl-C reaches every process of a terminal, and `_ended_with` acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _ended_with(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Where the block is interrupted, stages end at once, and those that wait do not begin."""
    others = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise


def run_stage(
    name: str,
    folder: Path,
    key: str,
    quick: bool,
    shared: Path | None,
    told: queue.Queue[tuple[str, float, str]],
) -> CachedReport:
    """Run one stage in this process, draw its pictures and keep its report.

    One thread: stages run side by side, and sums of floats have the same order on any machine.
    """
    import torch

    torch.set_num_threads(1)
    started = time.process_time()
    found = load_stage(name).run(Context(quick, shared, partial(_tell, told, name)))
    drawn = cache.draw(found, folder / name)
    report = CachedReport(
        key=key,
        claims=tuple(found.claims),
        tables=tuple(found.tables),
        figures=drawn,
        note=found.note,
        date=datetime.now(UTC).date().isoformat(),
        machine=cache.machine(),
        minutes=(time.process_time() - started) / 60,
    )
    cache.store(folder / name, report)
    return report


def _tell(
    told: queue.Queue[tuple[str, float, str]], name: str, done: int, total: int, text: str = ""
) -> None:
    told.put((name, done / total if total else 0.0, text))


def _watch(
    futures: dict[str, Future[CachedReport]], told: queue.Queue[tuple[str, float, str]], bar: Any
) -> None:
    """Move the bar until every stage has ended."""
    shares = dict.fromkeys(futures, 0.0)
    texts: dict[str, str] = {}
    running = set(futures)
    while running:
        with suppress(queue.Empty):
            name, shares[name], texts[name] = told.get(timeout=_INTERVAL_S)
        for name in sorted(name for name in running if futures[name].done()):
            running.remove(name)
            bar.write(f"{name}: {'ended' if futures[name].exception() is None else 'failed'}", sys.stderr)
        bar.n = sum(share if name in running else 1.0 for name, share in shares.items())
        bar.set_postfix_str(
            "; ".join(f"{name}: {texts[name]}" for name in texts if name in running), refresh=False
        )
        bar.refresh()
