"""Questions about the small network, and patience until something has become of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from proxygrad.spec import Spec

ENDLESS = 4096


def ask(**settings: Any) -> Spec:
    return Spec.model_validate({"model": "small", "layer": "conv2", "unit": 1, "steps": 8, **settings})


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)
