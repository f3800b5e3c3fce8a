"""What a power failure leaves of a file that was not on the disk yet."""

from __future__ import annotations

from collections.abc import Callable

Damage = Callable[[bytes], bytes]


def emptied(data: bytes) -> bytes:
    """Nothing of it."""
    return b""


def zeroed(data: bytes) -> bytes:
    """Its length alone."""
    return bytes(len(data))


def cut_off(data: bytes) -> bytes:
    """Its first half."""
    return data[: len(data) // 2]


def half_zeroed(data: bytes) -> bytes:
    """Its first half, and the length of the other."""
    return cut_off(data).ljust(len(data), b"\0")


DAMAGES = (emptied, zeroed, cut_off, half_zeroed)
NAMES = tuple(damage.__name__ for damage in DAMAGES)
