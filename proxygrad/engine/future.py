"""`RenderFuture`: the caller's handle of a submitted request. Any thread may use it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress

import torch
from torch.nn import functional

from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.rendering import Rendering
from proxygrad.engine.request import RenderProgress, RenderRequest
from proxygrad.images import encode_png
from proxygrad.networks.network import Network
from proxygrad.spec import Spec

#: Longer side of a preview, in pixels.
PREVIEW_PX = 128


class RenderFuture:
    """What `Engine.submit` returns: progress, previews, checkpoints, cancellation, and in the end the result.

    ``on_cancel`` is called with the request after `cancel`.
    """

    def __init__(
        self, request: RenderRequest, on_cancel: Callable[[RenderRequest], None] = lambda request: None
    ) -> None:
        self._request = request
        self._on_cancel = on_cancel

    @property
    def spec(self) -> Spec:
        """The request, resolved."""
        return self._request.spec

    @property
    def network(self) -> Network:
        """The network that is visualized."""
        return self._request.network

    @property
    def progress(self) -> RenderProgress:
        """Steps done, steps in all, and the latest activation."""
        return self._request.progress

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the last step at the pace of the latest ones; None before two steps, 0 once ended."""
        return self._request.remaining_s

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the request has ended, at most ``timeout_s`` seconds; True when it has."""
        with suppress(FutureTimeout):
            self._request.outcome.exception(timeout_s)
        return self._request.outcome.done()

    def result(self, timeout_s: float | None = None) -> Rendering:
        """The rendering; waits for it.

        Raises the error that ended the request: `LaneError`, `RenderCanceled`, `DeadlineExceeded`, an
        `InvalidRequest` or a `NetworkError`; and `TimeoutError` after ``timeout_s`` seconds.
        """
        return self._request.outcome.result(timeout_s)

    def cancel(self) -> None:
        """Stop: at once while the request waits for lanes, else at its next step; `result` then raises
        `RenderCanceled`. No effect once ended.
        """
        self._request.cancel()
        self._on_cancel(self._request)

    def extend_deadline(self, seconds_from_now: float | None) -> None:
        """Move the deadline, back or forth; None takes it away. It is checked before every step."""
        self._request.extend_deadline(seconds_from_now)

    def preview(self) -> bytes | None:
        """A PNG of the best image so far, or of the latest where steps see transformed images.

        Of several images, the one whose activation is in `progress`. Its longer side is at most `PREVIEW_PX`.
        None before the first step. Encoded in the caller's thread.
        """
        image = self._request.image
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

        None when they have ended, or ``timeout_s`` seconds have passed. While the request waits for lanes: at
        once, the checkpoint that it was submitted with.
        """
        try:
            return self._request.wish_checkpoint().result(timeout_s)
        except FutureTimeout:
            return None
