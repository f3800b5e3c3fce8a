"""How measured times are summed up."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of them does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def row(name: str, values: Sequence[float], unit: str = "ms", scale: float = 1e3) -> None:
    """Print p50, p99 and how many there were."""
    p50, p99 = (percentile(values, share) * scale for share in (0.5, 0.99))
    print(f"{name:<42} {p50:>8.2f} {p99:>8.2f} {unit:<5} n={len(values)}", flush=True)


def single(name: str, value: float, unit: str) -> None:
    """Print one number."""
    print(f"{name:<42} {value:>8.2f} {'':>8} {unit}", flush=True)
