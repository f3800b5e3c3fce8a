"""A progress bar on standard error for visualizations and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, TypeVar

from tqdm import tqdm

from proxygrad.protocol.attributions import Attribution
from proxygrad.protocol.batches import Batch
from proxygrad.protocol.visualizations import Visualization

Document = TypeVar("Document", bound=Visualization | Attribution | Batch)


class ProgressBar:
    """A progress bar that is called with the current document; a context manager."""

    def __init__(self, label: str = "") -> None:
        self._label = label
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, document: Visualization | Attribution | Batch) -> None:
        """Show the progress of a visualization or a batch."""
        done, total, unit, status = (
            _of_batch(document) if isinstance(document, Batch) else _of_visualization(document)
        )
        if self._bar is None:
            self._bar = tqdm(total=total, desc=self._label or _label(document), unit=unit, leave=True)
        self._bar.total = total
        self._bar.set_postfix_str(status, refresh=False)
        self._bar.update(done - self._bar.n)


@contextmanager
def reporting(
    progress: bool | Callable[[Document], object],
) -> Iterator[Callable[[Document], object] | None]:
    """What to call with every change: a bar, ``progress`` itself, or None for nothing."""
    if progress is True:
        with ProgressBar() as bar:
            yield bar
    else:
        yield progress or None


def _label(document: Visualization | Attribution | Batch) -> str:
    if isinstance(document, Visualization | Attribution):
        return f"{document.spec.model} {document.spec.layer} {document.spec.unit}"
    return f"{document.model} {document.layer}"


def _of_visualization(document: Visualization | Attribution) -> tuple[int, int, str, str]:
    return document.progress.step, document.progress.steps, "step", _status(document)


def _status(document: Visualization | Attribution) -> str:
    if document.state == "queued":
        ahead = f", {document.queue_position} ahead" if document.queue_position else ""
        left = "" if document.eta_s is None else f", about {document.eta_s:.0f} s"
        blocked = "" if document.blocked is None else f", {document.blocked.detail}"
        return "queued" + ahead + left + blocked
    activation = document.progress.activation
    if isinstance(document, Visualization) and document.result is not None:
        activation = document.result.achieved_activation
    return document.state if activation is None else f"activation {activation:.4g}"


def _of_batch(document: Batch) -> tuple[int, int, str, str]:
    counts = document.counts
    ended = counts.succeeded + counts.failed + counts.canceled
    shown = {"running": counts.running, "failed": counts.failed, "canceled": counts.canceled}
    status = ", ".join(f"{count} {state}" for state, count in shown.items() if count)
    return ended, document.units.total, "unit", status
