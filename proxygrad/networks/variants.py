"""Working copies: a network as the steps run it, made fast without being another one.

Batch norms are folded (`proxygrad.networks.batchnorm_folding`), convolutions laid out channels-last and
attention tokens-first (`proxygrad.networks.attention_layout`), and for bfloat16 the weights of convolutions
and linear layers cast once, under autocast. A copy shares with the network every weight that it does not
change. What is fast is used only where it is the same: each copy is first compared, layer by layer, with the
network on two random images, and control flow that leaves the way seen there is noticed.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from proxygrad.networks import capture
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
    """How a copy differs from the network."""

    pairs: tuple[Pair, ...] = ()
    channels_last: bool = False
    bfloat16: bool = False


EXACT = VariantSpec()


@dataclass(eq=False)
class Variant:
    """A network, or a working copy of one, with its modules by name."""

    module: nn.Module
    modules: Mapping[str, nn.Module]
    kind: VariantSpec = EXACT
    folds: tuple[Fold, ...] = ()

    def read(self, inputs: Tensor, wanted: Mapping[str, ModuleCall | None]) -> dict[str, Tensor]:
        """As `proxygrad.networks.capture.capture_activations`, in float32. Raises `FoldMismatch` too."""
        found = self.run(lambda laid_out: capture.capture_activations(self.module, laid_out, wanted), inputs)
        return {name: value.float() for name, value in found.items()}

    def run(self, once: Callable[[Tensor], _T], inputs: Tensor) -> _T:
        """``once(inputs)``, which calls the module one time; ``inputs`` ``(B, C, H, W)``, float32."""
        if self.kind.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with ExitStack() as stack:
            for fold in self.folds:
                stack.callback(fold.reset)  # also of a pass that failed: it must not keep values
            if self.kind.bfloat16:
                stack.enter_context(torch.autocast(inputs.device.type, torch.bfloat16))
            result = once(inputs)
            if any(fold.due for fold in self.folds):
                raise FoldMismatch
        return result


class VariantFactory:
    """Makes the working copies of one network, and compares them with it.

    ``exact``: the network itself. ``sample``: called for two normalized random images ``(2, C, H, W)``.
    Copies live as long as somebody holds them, and so do their weights.
    """

    def __init__(self, exact: Variant, sample: Callable[[], Tensor]) -> None:
        self.exact = exact
        self.sample = sample
        self._copies: WeakValueDictionary[VariantSpec, Variant] = WeakValueDictionary()
        self._weights: WeakValueDictionary[tuple[str, VariantSpec], nn.Parameter] = WeakValueDictionary()
        self._differences: dict[VariantSpec, Deviation] = {}

    def fastest(self, asked: Collection[str]) -> Variant:
        """The fastest copy in float32 that has the same values, those of the layers ``asked`` included."""
        pairs = tuple(pair for pair in self.pairs if pair.hidden.isdisjoint(asked))
        for kind in dict.fromkeys(
            (VariantSpec(pairs, True), VariantSpec((), True), VariantSpec(pairs, False))
        ):
            copy = self.made(kind)
            if self.differences(copy).largest <= ROUNDING:
                return copy
        return self.exact

    def made(self, kind: VariantSpec) -> Variant:
        """The copy of that kind, compared with nothing yet."""
        copy = self._copies.get(kind)
        if copy is None:
            copy = self._copies[kind] = self._make(kind)
        return copy

    def differences(self, copy: Variant) -> Deviation:
        """How the values of ``copy`` differ from the network's; infinitely when it fails."""
        if copy.kind not in self._differences:
            try:
                exact, backward = self._exact_samples
                samples, took_s = _timed(self._samples, copy, backward)
                found = replace(_compared(exact, samples, copy.kind), took_s=took_s)
            except (Exception, FoldMismatch) as error:
                found = Deviation({}, f"{type(error).__name__}: {error}".partition("\n")[0])
            self._differences[copy.kind] = found
        return self._differences[copy.kind]

    def pass_s(self, copy: Variant) -> float:
        """Seconds that a pass of two images takes on the CPU, the quicker of two."""
        _, backward = self._exact_samples
        return min(_timed(self._samples, copy, backward)[1] for _ in range(2))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """What can be folded, if nobody asks about it."""
        try:
            return find_pairs(self.exact.module, self.sample(), self.exact.modules)
        except Exception:  # a network that takes no two images, e.g.
            return ()

    @cached_property
    def _exact_samples(self) -> tuple[_Samples, bool]:
        """The network's own, and whether it has a backward pass from end to end."""
        try:
            return self._samples(self.exact, backward=True), True
        except Exception:
            return self._samples(self.exact, backward=False), False

    def _samples(self, copy: Variant, backward: bool) -> _Samples:
        """Some values of what each call of each module returns, by name and number of the call; the output's
        by the empty name."""
        names, calls = {each: name for name, each in copy.modules.items()}, Counter[str]()
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
            end = first_tensor(copy.run(copy.module, inputs))
            if end is not None:
                taken["", 1] = _sampled(end)
            if backward and end is not None and end.requires_grad:
                torch.autograd.grad(end.sum(), inputs)
        return taken

    def _make(self, kind: VariantSpec) -> Variant:
        module = sharing_copy(self.exact.module)
        modules = {name: each for name, each in module.named_modules() if name}
        folded = {pair.linear: modules[pair.norm] for pair in kind.pairs}
        for name, each in modules.items():
            lay_out(each)
            if type(each) in (*_CONVOLUTIONS, nn.Linear):
                self._equip(name, each, folded.get(name), kind)
        folds = tuple(Fold(modules[pair.linear], modules[pair.norm]) for pair in kind.pairs)
        return Variant(module, modules, kind, folds)

    def _equip(self, name: str, module: nn.Module, norm: nn.Module | None, kind: VariantSpec) -> None:
        """Give ``module`` the weights that ``kind`` asks for, which all copies that ask so share."""
        own = kind._replace(pairs=tuple(pair for pair in kind.pairs if pair.linear == name))
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
    """By layer, how far sampled values of a copy are from the network's: the root mean square of the
    difference as a share of that of the values. ``failure``: why the copy cannot be used; else empty.
    ``took_s``: seconds of the pass, its first."""

    by_layer: Mapping[str, float]
    failure: str = ""
    took_s: float = math.inf

    @property
    def largest(self) -> float:
        """Over all layers."""
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


def _compared(exact: _Samples, found: _Samples, kind: VariantSpec) -> Deviation:
    hidden = {name for pair in kind.pairs for name in pair.hidden}
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


def _cast(value: nn.Parameter, kind: VariantSpec) -> nn.Parameter:
    """``value`` itself where ``kind`` changes nothing of it."""
    dtype = torch.bfloat16 if kind.bfloat16 else value.dtype
    channels_last = kind.channels_last and value.ndim == 4
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if value.dtype == dtype and value.is_contiguous(memory_format=layout):
        return value
    return nn.Parameter(value.detach().to(dtype).contiguous(memory_format=layout), requires_grad=False)
