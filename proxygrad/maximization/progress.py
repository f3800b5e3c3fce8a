"""The progress bar of `proxygrad.maximize`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two drawings of the bar.
REFRESH_S = 0.1

OnStep = Callable[[int, int], None]


@contextmanager
def progress_bar(progress: bool | None, images: int, total: int, on_step: OnStep | None) -> Iterator[OnStep]:
    """``on_step(done, total)`` that moves a bar too, where one is shown.

    ``progress``: True and False are obeyed; None shows a bar where somebody sees it (`is_watched`).
    """
    shown = is_watched() if progress is None else progress
    if not shown:
        yield on_step or (lambda done, total: None)
        return
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets gets a bar of text
        from tqdm.auto import tqdm

    label = "1 image" if images == 1 else f"{images} images"
    with tqdm(total=total, desc=label, unit="step", leave=False, mininterval=REFRESH_S) as bar:

        def moved(done: int, total: int) -> None:
            bar.update(done - bar.n)
            if on_step is not None:
                on_step(done, total)

        yield moved


def is_watched() -> bool:
    """Whether stderr is a terminal, or a notebook runs this."""
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})
