"""Functions on which plain activation maximization provably stops at a poor maximum, by hand.

The kinds are those that Linse, Barth and Martinetz name (arXiv 2410.16958): sparse gradients, a race of
patterns, local maxima that Leaky ReLUs keep. Each is climbed from gray by the same ascent, with slope 0 and
with a proxy.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.backward.surrogate import surrogate
from proxygrad.optim.update_rules import normalized_ascent, rate


def climb(
    unit: Callable[[Tensor], Tensor], pixels: int, slope: float, proxy: str
) -> tuple[list[float], float]:
    """Normalized ascent from gray, 100 steps from 0.1 down: the last image and the unit's true value."""
    images = torch.full((1, 1, 1, pixels), 0.5, dtype=torch.float64)
    for step in range(100):
        images.requires_grad_()
        with surrogate(slope, proxy):  # type: ignore[arg-type]
            value = unit(images.flatten())
        (gradient,) = torch.autograd.grad(value, images)
        images = normalized_ascent(images.detach(), gradient, torch.tensor([rate(0.1, step, 100)]))
    return images.flatten().tolist(), float(unit(images.flatten()))


READINGS = pytest.mark.parametrize("proxy", ["surrogate", "network"])


@READINGS
def test_sparse_gradient_a_unit_behind_two_silent_rectifiers(proxy: str) -> None:
    """f = relu(relu(8x - 6) - 1/2), whose derivative at x = 1/2 is 0 exactly; its maximum is f(1) = 3/2."""

    def unit(x: Tensor) -> Tensor:
        return functional.relu(functional.relu(8 * x[0] - 6) - 0.5)

    assert climb(unit, 1, 0.0, proxy) == ([0.5], 0.0)
    assert climb(unit, 1, 0.05, proxy) == ([1.0], 1.5)


@READINGS
def test_sparse_gradient_a_part_of_the_image_that_is_never_asked(proxy: str) -> None:
    """f = a + 3 relu(b - 3/4): from gray b's derivative is always 0; plain ends at (1, 1/2), not (1, 1)."""

    def unit(x: Tensor) -> Tensor:
        return x[0] + 3 * functional.relu(x[1] - 0.75)

    assert climb(unit, 2, 0.0, proxy) == ([1.0, 0.5], 1.0)
    assert climb(unit, 2, 0.1, proxy) == ([1.0, 1.0], 1.75)


@READINGS
def test_race_of_patterns_the_first_to_grow_locks_the_other_in(proxy: str) -> None:
    """f = a + relu(4b - 2a - 3/2) over the unit square.

    From gray the rectifier is shut and the gradient (1, 0): a wins, which shuts it further, and (1, 1/2) with
    f = 1 is a local maximum. The global one is f(0, 1) = 5/2. With slope s the gradient is (1 - 2s, 4s): a
    still wins at first, yet b grows behind it until the rectifier opens, where the gradient is (-1, 4).
    """

    def unit(x: Tensor) -> Tensor:
        return x[0] + functional.relu(4 * x[1] - 2 * x[0] - 1.5)

    assert climb(unit, 2, 0.0, proxy) == ([1.0, 0.5], 1.0)
    image, value = climb(unit, 2, 0.1, proxy)
    assert image == pytest.approx([0.0, 1.0], abs=1e-12)
    assert value == pytest.approx(2.5, abs=1e-12)


@READINGS
def test_a_local_maximum_that_leaky_rectifiers_keep(proxy: str) -> None:
    """f = 4 leaky(x - 3/4) - x/10, slope .01: downhill at x = 1/2 (.04 - .1), so plain ends at f(0) = -.03.

    With slope .05 the proxy climbs (.2 - .1) over the valley to f(1) = .9.
    """

    def unit(x: Tensor) -> Tensor:
        return 4 * functional.leaky_relu(x[0] - 0.75, 0.01) - x[0] / 10

    image, value = climb(unit, 1, 0.0, proxy)
    assert [*image, value] == pytest.approx([0.0, -0.03])
    image, value = climb(unit, 1, 0.05, proxy)
    assert [*image, value] == pytest.approx([1.0, 0.9])


@READINGS
def test_a_smooth_unit_on_its_falling_side(proxy: str) -> None:
    """f = silu(8x - 6): at x = 1/2 the true derivative is negative; plain ends at silu(-6), not silu(2)."""

    def unit(x: Tensor) -> Tensor:
        return functional.silu(8 * x[0] - 6)

    image, value = climb(unit, 1, 0.0, proxy)
    assert [*image, value] == pytest.approx([0.0, -0.0148357], abs=1e-7)
    image, value = climb(unit, 1, 0.05, proxy)
    assert [*image, value] == pytest.approx([1.0, 1.7615942], abs=1e-7)
