"""Variants: fast copies of a network for the steps, each compared with the original before it is used.

Batch norms are folded (`proxygrad.networks.batchnorm_folding`), convolutions laid out channels-last and
attention tokens-first (`proxygrad.networks.attention_layout`), and for bfloat16 the weights of convolutions
and linear layers cast once, under autocast. A variant shares with the network every weight that it does not
change. It is used only where it is the same: it is first compared, layer by layer, with the network on two
random images, and control flow that takes another path later raises `FoldMismatch`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from proxygrad.networks import capture
from proxygrad.networks.ambient import seeded, undisturbed
from proxygrad.networks.attention_layout import lay_out
from proxygrad.networks.batchnorm_folding import Fold, FoldMismatch, Pair, find_pairs, folded_parameters
from proxygrad.networks.capture import ModuleCall, first_tensor
from proxygrad.networks.module_copy import sharing_copy
from proxygrad.precision import arithmetic

#: Most that a float32 copy may differ from the network (`Deviation`): above what rounding does, which stays
#: below 1e-5 on the networks of tests/proxygrad/networks/test_variants.py, and below what a wrong fold does.
ROUNDING = 1e-3
#: Values of each layer that are compared, spread evenly over it.
SAMPLES = 4096
#: Layers of smaller values (root mean square) are zero but for rounding, as differences of equal numbers are.
SMALLEST = 1e-6

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

_T = TypeVar("_T")
_Samples = dict[tuple[str, int], Tensor]


class VariantSpec(NamedTuple):
    """How a variant is built: folded pairs, memory layout, number format."""

    pairs: tuple[Pair, ...] = ()
    channels_last: bool = False
    bfloat16: bool = False


EXACT = VariantSpec()


@dataclass(eq=False)
class Variant:
    """A network, or a fast copy of one, with its modules by name. ``draws``: it draws random numbers, which
    are the same ones in each pass."""

    module: nn.Module
    modules: Mapping[str, nn.Module]
    spec: VariantSpec = EXACT
    folds: tuple[Fold, ...] = ()
    draws: bool = False

    def read(self, inputs: Tensor, calls: Mapping[str, ModuleCall | None]) -> dict[str, Tensor]:
        """As `proxygrad.networks.capture.capture_activations`, in float32, or float64 where the network is.

        Raises `FoldMismatch` too.
        """
        found = self.run(lambda laid_out: capture.capture_activations(self.module, laid_out, calls), inputs)
        return {
            name: value.to(torch.promote_types(value.dtype, torch.float32)) for name, value in found.items()
        }

    def run(self, once: Callable[[Tensor], _T], inputs: Tensor) -> _T:
        """``once(inputs)``, which calls the module one time; ``inputs`` ``(B, C, H, W)``, float32."""
        if self.spec.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with ExitStack() as stack:
            for fold in self.folds:
                stack.callback(fold.reset)  # also of a pass that failed: it must not keep values
            stack.enter_context(undisturbed())
            if self.draws:
                stack.enter_context(seeded(inputs.device))
            if self.spec.bfloat16:
                stack.enter_context(torch.autocast(inputs.device.type, torch.bfloat16))
            result = once(inputs)
            if any(fold.due for fold in self.folds):
                raise FoldMismatch
        return result


class VariantFactory:
    """Makes the variants of one network, and compares them with it.

    ``exact``: the network itself. ``sample``: called for two normalized random images ``(2, C, H, W)``.
    Variants live as long as somebody holds them, and so do their weights.
    """

    def __init__(self, exact: Variant, sample: Callable[[], Tensor]) -> None:
        self.exact = exact
        self.sample = sample
        self._variants: WeakValueDictionary[VariantSpec, Variant] = WeakValueDictionary()
        self._weights: WeakValueDictionary[tuple[str, VariantSpec], nn.Parameter] = WeakValueDictionary()
        self._deviations: dict[VariantSpec, Deviation] = {}

    def fastest(self, layers: Collection[str]) -> Variant:
        """The fastest variant in float32 that has the same values, those of ``layers`` included."""
        pairs = tuple(pair for pair in self.pairs if pair.hidden.isdisjoint(layers))
        for spec in dict.fromkeys(
            (VariantSpec(pairs, True), VariantSpec((), True), VariantSpec(pairs, False))
        ):
            variant = self.variant(spec)
            if self.deviation(variant).largest <= ROUNDING:
                return variant
        return self.exact

    def variant(self, spec: VariantSpec) -> Variant:
        """The variant of that spec, not compared yet."""
        variant = self._variants.get(spec)
        if variant is None:
            variant = self._variants[spec] = self._make(spec)
        return variant

    def deviation(self, variant: Variant) -> Deviation:
        """How the values of a variant differ from the network's; infinitely when it fails."""
        if variant.spec not in self._deviations:
            try:
                exact, backward = self._exact_samples
                samples, took_s = _timed(self._samples, variant, backward)
                found = replace(_compared(exact, samples, variant.spec), took_s=took_s)
            except (Exception, FoldMismatch) as error:
                found = Deviation({}, f"{type(error).__name__}: {error}".partition("\n")[0])
            self._deviations[variant.spec] = found
        return self._deviations[variant.spec]

    def pass_s(self, variant: Variant) -> float:
        """Seconds that a pass of two images takes on the CPU, the quicker of two."""
        _, backward = self._exact_samples
        return min(_timed(self._samples, variant, backward)[1] for _ in range(2))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that can be folded, as far as none of their layers is read."""
        try:
            once = partial(find_pairs, self.exact.module, names=self.exact.modules)
            return self.exact.run(once, self.sample())
        except Exception:  # a network that takes no two images, e.g.
            return ()

    @cached_property
    def _exact_samples(self) -> tuple[_Samples, bool]:
        """The samples of the network itself, and whether it has a backward pass from end to end."""
        try:
            return self._samples(self.exact, backward=True), True
        except Exception:
            return self._samples(self.exact, backward=False), False

    def _samples(self, variant: Variant, backward: bool) -> _Samples:
        """Some values of what each call of each module returns, by name and number of the call; the output's
        by the empty name."""
        names, calls = {each: name for name, each in variant.modules.items()}, Counter[str]()
        taken: _Samples = {}

        def take(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[names[module]] += 1
            if (value := first_tensor(output)) is not None:
                taken[names[module], calls[names[module]]] = _sampled(value)

        inputs = self.sample().requires_grad_(backward)
        with ExitStack() as stack:
            for each in names:
                stack.callback(each.register_forward_hook(take).remove)
            stack.enter_context(arithmetic("float32", inputs.device))
            stack.enter_context(torch.set_grad_enabled(backward))
            end = first_tensor(variant.run(variant.module, inputs))
            if end is not None:
                taken["", 1] = _sampled(end)
            if backward and end is not None and end.requires_grad:
                torch.autograd.grad(end.sum(), inputs)
        return taken

    def _make(self, spec: VariantSpec) -> Variant:
        module = sharing_copy(self.exact.module)
        modules = {name: each for name, each in module.named_modules() if name}
        folded = {pair.linear: modules[pair.norm] for pair in spec.pairs}
        for name, each in modules.items():
            lay_out(each)
            if type(each) in (*_CONVOLUTIONS, nn.Linear):
                self._equip(name, each, folded.get(name), spec)
        folds = tuple(Fold(modules[pair.linear], modules[pair.norm]) for pair in spec.pairs)
        return Variant(module, modules, spec, folds, self.exact.draws)

    def _equip(self, name: str, module: nn.Module, norm: nn.Module | None, spec: VariantSpec) -> None:
        """Give ``module`` the weights of ``spec``, which all variants with the same weights share."""
        own = spec._replace(pairs=tuple(pair for pair in spec.pairs if pair.linear == name))
        found = {part: self._weights.get((f"{name}.{part}", own)) for part in ("weight", "bias")}
        if found["weight"] is None:
            weights = (module.weight, module.bias) if norm is None else folded_parameters(module, norm)
            given = zip(("weight", "bias"), weights, strict=True)
            found = {part: _cast(value, own) for part, value in given if isinstance(value, nn.Parameter)}
        for part, value in found.items():
            if value is not None:
                self._weights[f"{name}.{part}", own] = value
                module._parameters[part] = value


@dataclass(frozen=True)
class Deviation:
    """By layer, how far sampled values of a variant are from the network's: the root mean square of the
    difference as a share of that of the values. ``failure``: why the variant cannot be used; else empty.
    ``took_s``: seconds of the pass, its first."""

    by_layer: Mapping[str, float]
    failure: str = ""
    took_s: float = math.inf

    @property
    def largest(self) -> float:
        """The largest deviation over all layers; infinite after a failure."""
        return math.inf if self.failure else max(self.by_layer.values(), default=0.0)


def _timed(run: Callable[..., _T], *given: Any) -> tuple[_T, float]:
    began = time.perf_counter()
    return run(*given), time.perf_counter() - began


def _sampled(value: Tensor) -> Tensor:
    """At most `SAMPLES` values, the same ones of any tensor of that size."""
    flat = value.detach().flatten()
    if len(flat) > SAMPLES:
        places = torch.randint(len(flat), (SAMPLES,), generator=torch.Generator().manual_seed(0))
        flat = flat[places.to(flat.device)]
    return flat.float().clone()


def _compared(exact: _Samples, found: _Samples, spec: VariantSpec) -> Deviation:
    hidden = {name for pair in spec.pairs for name in pair.hidden}
    by_layer: dict[str, float] = {}
    for (name, number), value in exact.items():
        if name in hidden:
            continue
        other = found.get((name, number))
        if other is None or other.shape != value.shape:
            return Deviation({}, f"call {number} of layer {name!r} did not take place, or otherwise")
        share = _rms(other - value) / max(_rms(value), SMALLEST)
        by_layer[name] = max(by_layer.get(name, 0.0), share if math.isfinite(share) else math.inf)
    return Deviation(by_layer)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0


def _cast(value: nn.Parameter, spec: VariantSpec) -> nn.Parameter:
    """``value`` in the format and layout of ``spec``; itself where nothing changes."""
    dtype = torch.bfloat16 if spec.bfloat16 else value.dtype
    channels_last = spec.channels_last and value.ndim == 4
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if value.dtype == dtype and value.is_contiguous(memory_format=layout):
        return value
    return nn.Parameter(value.detach().to(dtype).contiguous(memory_format=layout), requires_grad=False)
