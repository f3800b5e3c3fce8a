"""The layer reader: runs a network up to some layers, on the fastest variant that has the same values."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from proxygrad.errors import NetworkError
from proxygrad.networks.batchnorm_folding import FoldMismatch
from proxygrad.networks.variants import Deviation, Variant, VariantFactory
from proxygrad.precision import Arithmetic, Precision, arithmetic, chosen

#: "auto" leaves bfloat16 where it moves a layer's values further than this
#: (`proxygrad.networks.variants.Deviation`): rounding to 8 bits moves them by 0.2 to 2 % in the networks of
#: docs/measurements/speed.md.
TOO_COARSE = 0.1
#: And where a pass takes so many times as long as in float32: there are operations without a fast kernel in
#: bfloat16. Far from 1, so that the choice does not hang on what else the machine does.
TOO_SLOW = 4.0


class LayerReader:
    """Reads layers: ``reader(images)``, ``(B, C, H, W)`` in [0, 1] → ``{layer: (B, …)}`` in float32.

    As `proxygrad.networks.network.Network.read`, differentiable, but faster: within rounding the same in
    float32, to about three digits in bfloat16. ``dtype``: the arithmetic of the passes. Forward and backward
    pass belong inside `arithmetic`. ``memory``: what steps have found
    out about it. Made by `Network.prepared`.
    """

    def __init__(
        self,
        read: Callable[[Variant, Tensor], dict[str, Tensor]],
        variants: tuple[Variant, Callable[[], Variant]],
        dtype: Arithmetic,
        device: torch.device,
    ) -> None:
        self.dtype = dtype
        self.device = device
        self.memory: dict[tuple[object, ...], Any] = {}
        self._read = read
        self._variant, self._unfolded = variants

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """One forward pass: what each layer returns, batch first.

        An image with control flow that folding did not see before is read without it, whatever images were
        read earlier. Of several images one may be such: that raises `FoldMismatch`; read them one by one.
        """
        try:
            return self._read(self._variant, images)
        except FoldMismatch:
            if len(images) > 1:
                raise
            return self._read(self._unfolded(), images)

    def arithmetic(self) -> AbstractContextManager[None]:
        """Context manager: `proxygrad.precision.arithmetic` for the passes of this reader."""
        return arithmetic(self.dtype, self.device)

    @property
    def module(self) -> nn.Module:
        """The module that runs: the network's own where no variant has its values."""
        return self._variant.module

    @property
    def folded(self) -> tuple[str, ...]:
        """Names of the batch norms that are folded."""
        return tuple(pair.norm for pair in self._variant.spec.pairs)


def prepare(
    factory: VariantFactory,
    layers: Collection[str],
    precision: Precision,
    read: Callable[[Variant, Tensor], dict[str, Tensor]],
) -> LayerReader:
    """A reader of ``layers``. Raises `NetworkError` for a precision that the network or device lacks."""
    sample = factory.sample()
    dtype = chosen(precision, sample.device, (sample.shape[2], sample.shape[3]))
    variant = factory.fastest(layers)
    if dtype == "bfloat16":
        cast = factory.variant(variant.spec._replace(bfloat16=True))
        problem = _failure(factory, cast, layers) or (
            precision == "auto" and _doubt(factory, cast, variant, layers)
        )
        if problem and precision != "auto":
            raise NetworkError(
                f"precision 'bfloat16' is not for this network: {problem}; valid: auto, float32"
            )
        variant, dtype = (variant, "float32") if problem else (cast, dtype)
    unfolded = variant.spec._replace(pairs=())
    return LayerReader(read, (variant, lambda: factory.variant(unfolded)), dtype, sample.device)


def _failure(factory: VariantFactory, cast: Variant, layers: Collection[str]) -> str:
    """Why ``layers`` cannot be read from a bfloat16 variant; empty where they can."""
    found = factory.deviation(cast)
    odd = [name or "output" for name in layers if not math.isfinite(found.by_layer.get(name, 0.0))]
    return found.failure or (f"values of layer {odd[0]!r} are not finite" if odd else "")


def _doubt(factory: VariantFactory, cast: Variant, variant: Variant, layers: Collection[str]) -> str:
    """Why precision "auto" leaves bfloat16: too coarse or too slow; empty where it takes it."""
    found, base = factory.deviation(cast), factory.deviation(variant)
    if (moved := _moved(found, layers)) > TOO_COARSE:
        return f"values move by {moved:.0%}"
    if found.took_s <= TOO_SLOW * base.took_s:
        return ""
    times = factory.pass_s(cast) / factory.pass_s(variant)  # the first passes had kernels to make
    return f"a pass takes {times:.0f} times as long as in float32" if times > TOO_SLOW else ""


def _moved(found: Deviation, layers: Collection[str]) -> float:
    return max((found.by_layer.get(name, 0.0) for name in layers), default=0.0)
