"""A progress bar on standard error, fed by what is seen of a visualization or of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, TypeVar

from tqdm import tqdm

from proxygrad.protocol import batches
from proxygrad.protocol.visualizations import Visualization

Seen = TypeVar("Seen", Visualization, batches.Batch)

_ENDED = ("succeeded", "failed", "canceled")


class Bar:
    """Shows what it is called with; a context manager. Takes visualizations, or batches."""

    def __init__(self, label: str = "") -> None:
        self._label = label
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, seen: Visualization | batches.Batch) -> None:
        """Show how it stands."""
        done, total, unit, standing = _of_batch(seen) if isinstance(seen, batches.Batch) else _of(seen)
        if self._bar is None:
            self._bar = tqdm(total=total, desc=self._label or _label(seen), unit=unit, leave=True)
        self._bar.total = total
        self._bar.set_postfix_str(standing, refresh=False)
        self._bar.update(done - self._bar.n)


@contextmanager
def showing(progress: bool | Callable[[Seen], object]) -> Iterator[Callable[[Seen], object] | None]:
    """What to call whenever something has changed; None where nothing is to be shown."""
    if progress is True:
        with Bar() as bar:
            yield bar
    else:
        yield progress or None


def _label(seen: Visualization | batches.Batch) -> str:
    if isinstance(seen, Visualization):
        return f"{seen.spec.model} {seen.spec.layer} {seen.spec.unit}"
    return f"{seen.model} {seen.layer}"


def _of(seen: Visualization) -> tuple[int, int, str, str]:
    return seen.progress.step, seen.progress.steps, "step", _standing(seen)


def _standing(seen: Visualization) -> str:
    if seen.state == "queued":
        ahead = f", {seen.queue_position} ahead" if seen.queue_position else ""
        left = "" if seen.eta_s is None else f", about {seen.eta_s:.0f} s"
        blocked = "" if seen.blocked is None else f", {seen.blocked.detail}"
        return "queued" + ahead + left + blocked
    activation = seen.progress.activation if seen.result is None else seen.result.achieved_activation
    return seen.state if activation is None else f"activation {activation:.4g}"


def _of_batch(seen: batches.Batch) -> tuple[int, int, str, str]:
    counts = seen.counts.model_dump()
    standing = ", ".join(
        f"{counts[state]} {state}" for state in ("running", "failed", "canceled") if counts[state]
    )
    return sum(counts[state] for state in _ENDED), seen.units.total, "unit", standing
