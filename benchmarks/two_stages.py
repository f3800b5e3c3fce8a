"""The exact maximum of the two-stage toy function of examples/toy_functions.py, over all images.

Its mean over the map is ``f(r) = 1/121 Σ_q c_q relu(u_q)`` with ``r = relu(x)`` in [0, 1] at every pixel,
``u = r(left) + r(right) - r(above) - r(below)``, and ``c_q`` the sum of the second stage's weights over those
outputs that see q. No ``c_q`` is negative, so f is convex in r and has its maximum at a corner: an image of
zeros and ones. Among all 2^121 of those the best is found by dynamic programming, pixel by pixel; of what was
set before, the rest of the sum depends on the last two rows alone, that is on 22 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.toy_functions import DIRECTIONS, SECOND_WEIGHTS, SIZE_PX


def coefficients() -> NDArray[np.float32]:
    """``c_q``, ``(11, 11)``: the second stage's weights of the outputs that see each position."""
    found = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    for row, column in np.ndindex(*found.shape):
        for weight, (down, right) in zip(SECOND_WEIGHTS, DIRECTIONS, strict=True):
            if 0 <= row - 2 * down < SIZE_PX and 0 <= column - 2 * right < SIZE_PX:
                found[row, column] += weight
    return found


def optimum(gains: NDArray[np.float32]) -> tuple[float, NDArray[np.uint8]]:
    """The largest value of f, and an image of zeros and ones that has it.

    ``gains``: ``c_q``, a square; raises `ValueError` if one is negative.
    """
    if (gains < 0).any():
        raise ValueError(f"gain {gains.min():g} is negative: the maximum need not be at a corner")
    size = len(gains)
    bits = 2 * size
    # A state holds the last `bits` pixels, the newest as its lowest bit.
    values = np.full(2**bits, -np.inf, np.float32)
    values[0] = 0.0
    rest = np.arange(2 ** (bits - 1))  # a state but for its oldest pixel, the one two rows up
    left, right = (rest >> size) & 1, (rest >> (size - 2)) & 1
    dropped = list[NDArray[np.uint8]]()
    for row, column in np.ndindex(size + 1, size):  # below the image one row of zeros
        sides = (left if column > 0 else 0) + (right if column < size - 1 else 0)
        after = np.full((2 ** (bits - 1), 2), -np.inf, np.float32)
        oldest = np.zeros((2 ** (bits - 1), 2), bool)
        for new in (0, 1) if row < size else (0,):
            gain = gains[row - 1, column] if row > 0 else 0.0  # of the pixel above the new one
            zero, one = (
                part + gain * np.maximum(sides - old - new, 0)
                for old, part in enumerate(values.reshape(2, -1))
            )
            after[:, new], oldest[:, new] = np.maximum(zero, one), one > zero
        dropped.append(np.packbits(oldest))
        values = after.reshape(-1)
    state = int(values.argmax())
    best = float(values[state]) / size**2
    pixels = list[int]()
    for packed in reversed(dropped):
        pixels.append(state & 1)
        old = int(packed[state >> 3] >> (7 - (state & 7))) & 1
        state = (state >> 1) | (old << (bits - 1))
    image = np.array(pixels[::-1], np.uint8).reshape(size + 1, size)[:size]
    return best, image
