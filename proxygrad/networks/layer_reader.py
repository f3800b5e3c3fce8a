"""What the steps read a network with: the fastest working copy that is the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from proxygrad.errors import NetworkError
from proxygrad.networks.batchnorm_folding import FoldMismatch
from proxygrad.networks.variants import Deviation, Variant, VariantFactory
from proxygrad.precision import Arithmetic, Precision, arithmetic, chosen

#: "auto" leaves bfloat16 where it moves a layer's values further than this
#: (`proxygrad.networks.variants.Deviation`): rounding to 8 bits moves them by 0.2 to 2 % in the networks of
#: docs/speed.md.
TOO_COARSE = 0.1
#: And where a pass takes so many times as long as in float32: there are operations without a fast kernel in
#: bfloat16. Far from 1, so that the choice does not hang on what else the machine does.
TOO_SLOW = 4.0


class LayerReader:
    """``reader(images)``: what layers return for ``images`` ``(B, C, H, W)`` in [0, 1], batch first, float32.

    As `proxygrad.networks.network.Network.read`, differentiable, but faster: within rounding the same in
    float32, to about three digits in bfloat16. ``dtype`` is what it computes in. Forward and backward pass
    belong into `arithmetic`. Made by `Network.prepared`.
    """

    def __init__(
        self,
        read: Callable[[Variant, Tensor], dict[str, Tensor]],
        copies: tuple[Variant, Callable[[], Variant]],
        dtype: Arithmetic,
        device: torch.device,
    ) -> None:
        self.dtype = dtype
        self.device = device
        self._read = read
        self._copy, self._unfolded = copies

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """One forward pass."""
        try:
            return self._read(self._copy, images)
        except FoldMismatch:  # control flow that was not seen before: folding is not for this network
            self._copy = self._unfolded()
            return self._read(self._copy, images)

    def arithmetic(self) -> AbstractContextManager[None]:
        """`proxygrad.precision.arithmetic` of this reader."""
        return arithmetic(self.dtype, self.device)

    @property
    def module(self) -> nn.Module:
        """What runs: the network's own module where no copy of it will do."""
        return self._copy.module

    @property
    def folded(self) -> tuple[str, ...]:
        """Names of the batch norms that are folded."""
        return tuple(pair.norm for pair in self._copy.kind.pairs)


def prepare(
    workshop: VariantFactory,
    asked: Collection[str],
    precision: Precision,
    read: Callable[[Variant, Tensor], dict[str, Tensor]],
) -> LayerReader:
    """A reader of the layers ``asked``. Raises `NetworkError` for a precision that is not to be had."""
    sample = workshop.sample()
    dtype = chosen(precision, sample.device, (sample.shape[2], sample.shape[3]))
    copy = workshop.fastest(asked)
    if dtype == "bfloat16":
        cast = workshop.made(copy.kind._replace(bfloat16=True))
        problem = _failure(workshop, cast, asked) or (
            precision == "auto" and _doubt(workshop, cast, copy, asked)
        )
        if problem and precision != "auto":
            raise NetworkError(
                f"precision 'bfloat16' is not for this network: {problem}; valid: auto, float32"
            )
        copy, dtype = (copy, "float32") if problem else (cast, dtype)
    unfolded = copy.kind._replace(pairs=())
    return LayerReader(read, (copy, lambda: workshop.made(unfolded)), dtype, sample.device)


def _failure(workshop: VariantFactory, cast: Variant, asked: Collection[str]) -> str:
    """Why the layers ``asked`` cannot be read from a bfloat16 copy; empty where they can."""
    found = workshop.differences(cast)
    odd = [name or "output" for name in asked if not math.isfinite(found.by_layer.get(name, 0.0))]
    return found.failure or (f"values of layer {odd[0]!r} are not finite" if odd else "")


def _doubt(workshop: VariantFactory, cast: Variant, copy: Variant, asked: Collection[str]) -> str:
    """Why they should not be, when nobody insists; empty where they should."""
    found, base = workshop.differences(cast), workshop.differences(copy)
    if (moved := _moved(found, asked)) > TOO_COARSE:
        return f"values move by {moved:.0%}"
    if found.took_s <= TOO_SLOW * base.took_s:
        return ""
    times = workshop.pass_s(cast) / workshop.pass_s(copy)  # the first passes had kernels to make
    return f"a pass takes {times:.0f} times as long as in float32" if times > TOO_SLOW else ""


def _moved(found: Deviation, asked: Collection[str]) -> float:
    return max((found.by_layer.get(name, 0.0) for name in asked), default=0.0)
