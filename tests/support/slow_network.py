"""A network that is as slow as a test wants it, and stands still when it is told to."""

from __future__ import annotations

import threading
import time
from typing import Any

from torch import Tensor

from proxygrad.networks.network import Network
from tests.support.networks import Small


class Pace:
    """How fast a network is: one for all copies of it."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self.passes = 0
        self.going, self.standing = threading.Event(), threading.Event()
        self.going.set()

    def hold(self) -> None:
        """Let the engine's thread stand still within the next forward pass; returns when it does."""
        self.standing.clear()
        self.going.clear()
        assert self.standing.wait(60)

    def run(self) -> None:
        """One forward pass."""
        self.passes += 1
        if not self.going.is_set():
            self.standing.set()
            self.going.wait(60)
        time.sleep(self.pause_s)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pace:
        return self


class Slow(Small):
    """As fast as its pace."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.pace = pace

    def forward(self, x: Tensor) -> Tensor:
        self.pace.run()
        return super().forward(x)


def slow(pause_s: float = 0.0) -> tuple[Network, Pace]:
    pace = Pace(pause_s)
    return Network(Slow(pace), (3, 16, 16), name="slow"), pace
