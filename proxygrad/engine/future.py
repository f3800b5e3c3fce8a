"""A ticket: what the engine hands out for a question, and all that a caller can do while it is answered.

Its public part may be used by any thread; what begins with an underscore is the engine's thread's.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.rendering import Rendering
from proxygrad.engine.request import RenderRequest
from proxygrad.errors import Canceled, DeadlineExceeded, ProxyGradError
from proxygrad.images import encode_png
from proxygrad.networks.network import Network
from proxygrad.spec import Spec

#: Longer side of a preview, in pixels.
PREVIEW_PX = 128
#: The pace is that of so many steps.
PACE_STEPS = 8


@dataclass(frozen=True)
class Progress:
    """Steps done, steps asked for, and the latest activation, which is None before the first step.

    Of several images the highest; of plain ones, which are there to compare, none.
    """

    step: int
    steps: int
    activation: float | None


class RenderFuture:
    """What `Engine.submit` returns: progress, previews, checkpoints, the way to stop it, and in the end the
    rendering. ``spec`` is resolved.
    """

    def __init__(
        self,
        network: Network,
        spec: Spec,
        deadline_s: float | None = None,
        checkpoint: Checkpoint | None = None,
        on_cancel: Callable[[RenderFuture], None] = lambda ticket: None,
    ) -> None:
        self.network = network
        self.spec = spec
        self.progress = Progress(checkpoint.step if checkpoint else 0, spec.steps, None)
        self._submitted_at = time.monotonic()
        self._deadline: float | None = None
        self.extend_deadline(deadline_s)
        self._begin_at = checkpoint
        self._on_cancel = on_cancel
        self._canceled = threading.Event()
        self._future: Future[Rendering] = Future()
        self._started_at: float | None = None
        self._party: RenderRequest | None = None  # found once, by the engine
        self._times: deque[float] = deque(maxlen=PACE_STEPS + 1)
        self._pace: tuple[float, float] | None = None  # seconds a step, and since when
        self._image: Tensor | None = None  # (C, H, W), not written to any more
        self._lock = threading.Lock()
        self._wish: Future[Checkpoint | None] | None = None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all lanes have ended, at most ``timeout_s`` seconds; True when it has."""
        with suppress(FutureTimeout):
            self._future.exception(timeout_s)
        return self._future.done()

    def result(self, timeout_s: float | None = None) -> Rendering:
        """The rendering, as soon as it is there.

        Raises what ended the lane otherwise: `LaneError`, `Canceled`, `DeadlineExceeded`, an
        `InvalidRequest` or a `NetworkError`; and `TimeoutError` after ``timeout_s`` seconds.
        """
        return self._future.result(timeout_s)

    def cancel(self) -> None:
        """Stop: at once while it waits for a lane, else at its next step; `result` then raises `Canceled`.
        No effect once ended.
        """
        self._canceled.set()
        self._on_cancel(self)

    def extend_deadline(self, seconds_from_now: float | None) -> None:
        """Move the deadline, back or forth; None takes it away. It is looked at before every step."""
        if seconds_from_now is not None and math.isnan(seconds_from_now):
            raise ValueError(f"deadline_s {seconds_from_now} is not a number of seconds")
        self._deadline = None if seconds_from_now is None else time.monotonic() + seconds_from_now

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the last step at the pace of the latest ones; None before two steps, 0 once ended."""
        if self._future.done():
            return 0.0
        pace, progress = self._pace, self.progress
        if pace is None:
            return None
        each_s, since = pace
        return max(0.0, (progress.steps - progress.step) * each_s - (time.monotonic() - since))

    def preview(self) -> bytes | None:
        """A PNG of the best image so far, or of the latest where steps see moved images; of several lanes, of
        the one whose activation `progress` tells. Its longer side is at most `PREVIEW_PX`. None before the
        first step. Made in the caller's thread.
        """
        image = self._image
        if image is None:
            return None
        with torch.no_grad():
            shown = image.detach().to("cpu", torch.float32)
            longer = max(shown.shape[1:])
            if longer > PREVIEW_PX:
                size = [max(1, round(side * PREVIEW_PX / longer)) for side in shown.shape[1:]]
                shown = functional.interpolate(shown.unsqueeze(0), size=size, mode="area")[0]
            return encode_png(shown)

    def checkpoint(self, timeout_s: float = 10.0) -> Checkpoint | None:
        """The lanes' states after their next step, for `Engine.submit`; waits for that step.

        None when they have ended, or ``timeout_s`` seconds have passed. While the ticket waits for a lane:
        at once, what it was submitted with.
        """
        with self._lock:
            if self._future.done():
                return None
            if self._started_at is None:
                return self._begin_at
            wish = self._wish = self._wish or Future()
        try:
            return wish.result(timeout_s)
        except FutureTimeout:
            return None

    def _start(self) -> None:
        carried_s = self._begin_at.ran_s if self._begin_at else 0.0
        with self._lock:
            self._started_at = time.monotonic() - carried_s

    def _ran_s(self) -> float:
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at

    def _stopped(self) -> ProxyGradError | None:
        """Why the lane must end before its next step, if it must."""
        step, deadline = self.progress.step, self._deadline
        if self._canceled.is_set():
            return Canceled(f"canceled {f'after step {step}' if step else 'before its first step'}")
        if deadline is not None and time.monotonic() >= deadline:
            return DeadlineExceeded(step, self.spec.steps, deadline - self._submitted_at)
        return None

    def _follow(self, party: RenderRequest) -> None:
        """A step has been made."""
        lane = party.leading
        self._times.append(time.monotonic())
        if len(self._times) > 2:  # the first of them only evaluated the start
            since = self._times[-1]
            self._pace = (since - self._times[0]) / (len(self._times) - 1), since
        self.progress = Progress(lane.step, lane.settings.steps, lane.curve[-1] if lane.curve else None)
        self._image = lane.image

    @property
    def _wished(self) -> bool:
        return self._wish is not None

    def _grant(self, checkpoint: Checkpoint | None) -> None:
        with self._lock:
            wish, self._wish = self._wish, None
        if wish is not None:
            wish.set_result(checkpoint)

    def _resolve(self, outcome: Rendering | Exception) -> None:
        with suppress(InvalidStateError):
            if isinstance(outcome, Rendering):
                self._future.set_result(outcome)
            else:
                self._future.set_exception(outcome)
        self._grant(None)
