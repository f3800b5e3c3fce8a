"""Layer discovery: finds what each call of each module returns, and where in it the units are.

One forward pass on gray. Units are the entries of one dimension of what a layer returns: the channels of a
feature map, the features of a token. Which dimension that is cannot be read off a shape: maps come as
``(B, C, H, W)`` and as ``(B, H, W, C)``, sequences as ``(B, T, D)`` and as ``(T, B, D)``. The rule:

1. Convolutions, batch and group norms and pooling have their units in dimension 1; linear layers, layer norms
   and attention in the last. That is how torch defines them.
2. Anything else, e.g. an activation function, a permutation or a whole block, is like the tensor itself where
   one of those made it or takes it, else like the tensor of the same shape that one of those made or took
   nearest to it in the pass.
3. Where neither is to be had, a map has its units in dimension 1 and a sequence in the last; what has the
   rows and columns of a map, and no third side, is a map of one unit, as of depth.

Shapes tell nothing where all sides are equal, e.g. 8 channels of 8x8: a second pass on an image twice as
wide decides then, where the network takes one.

The batch is dimension 0, or 1 in a sequence whose dimension 0 is not of the batch's size.

Which layers are pre-activation and which post-activation is seen in the same pass:
`proxygrad.networks.discovery.activation_stage`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from proxygrad.backward.surrogate import surrogate
from proxygrad.networks.capture import first_tensor
from proxygrad.networks.discovery.activation_stage import ActivationTracer, Value
from proxygrad.networks.discovery.reach import Reach
from proxygrad.spec.models import OUTPUT, LayerInfo, LayerKind

#: A child of that name which is not the network's output.
_FIRST_OUTPUT = f"{OUTPUT}@1"
#: Of the pass that discovers layers: any above 0.
SLOPE = 0.5

_UNITS_FIRST = (
    *(nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LocalResponseNorm),
)
_UNITS_LAST = (nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.LSTM, nn.GRU, nn.RNN)
#: Layer norms of the last dimension; over several dimensions they say nothing about units.
_NORMS = (nn.LayerNorm, nn.RMSNorm)


class TensorLayout(NamedTuple):
    """Where batch and units are in what a module returns. ``units``: None of a map without channels."""

    batch: int
    units: int | None

    def arrange(self, value: Tensor) -> Tensor:
        """A view with the batch first, and units where objectives expect them:
        ``(B, units, rows, columns)``, ``(B, tokens, units)`` or ``(B, units)``."""
        if self.units is None:
            return value.unsqueeze(1)
        return value.movedim((self.batch, self.units), (0, 1 if value.ndim == 4 else -1))


def declared_units(module: nn.Module) -> int | None:
    """The dimension of the units where torch defines it for this module: 1, or -1 for the last; else None.

    A subclass with a forward pass of its own counts as unknown: torchvision's ``LayerNorm2d`` permutes.
    """
    if _runs_as(module, _UNITS_FIRST):
        return 1
    if _runs_as(module, _UNITS_LAST):
        return -1
    return -1 if _runs_as(module, _NORMS) and len(getattr(module, "normalized_shape", ())) == 1 else None


def _runs_as(module: nn.Module, types: tuple[type[nn.Module], ...]) -> bool:
    return any(isinstance(module, each) and type(module).forward is each.forward for each in types)


class _Mark(NamedTuple):
    """At ``moment``, a layer that declares its units made or took ``tensor``."""

    moment: int
    tensor: Tensor
    units: int


class _Return(NamedTuple):
    """At ``moment``, ``module`` returned ``value``, a tensor of that ``version``; None: no floating-point
    tensor."""

    moment: int
    module: nn.Module
    value: Value | None
    version: int

    @property
    def tensor(self) -> Tensor | None:
        return None if self.value is None else self.value.tensor

    def is_whole(self, end: Tensor | None) -> bool:
        """Whether it is ``end``, and nothing has written over it since."""
        return end is not None and self.tensor is end and self.version == _version(end)


@dataclass
class _Log:
    """What the hooks record. Tensors are held until the end, so that their ids stay unique."""

    names: dict[nn.Module, str]
    reach: Reach
    tracer: ActivationTracer = field(default_factory=ActivationTracer)
    calls: Counter[str] = field(default_factory=Counter)
    returned: dict[str, _Return] = field(default_factory=dict)
    marks: defaultdict[torch.Size, list[_Mark]] = field(default_factory=lambda: defaultdict(list))
    moment: int = 0

    @property
    def child_output(self) -> nn.Module | None:
        """The child that is called `output`."""
        return next((module for module, name in self.names.items() if name == OUTPUT), None)

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        tensor = first_tensor(inputs)
        self._mark(module, tensor)
        self.reach.enter(self.names[module], tensor)

    def after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        self._mark(module, tensor)
        self.reach.leave(tensor)
        name = self.names[module]
        self.calls[name] += 1
        number = self.calls[name]
        label = name if number == 1 else f"{name}@{number}"
        if number == 1 or label not in self.names.values():  # a child may have that very name
            self.keep(label, module, tensor)

    def keep(self, label: str, module: nn.Module, tensor: Tensor | None) -> None:
        value, version = (None, 0) if tensor is None else (self.tracer.value(tensor), _version(tensor))
        self.returned[label] = _Return(self.moment, module, value, version)

    def end(self, module: nn.Module, end: Tensor | None) -> str:
        """The name of the network's output, and its place in the log: the innermost module that returned it.

        A child that is called `output`, and returns something else, goes by `output@1`.
        """
        made_by = [name for name, each in self.returned.items() if each.is_whole(end)]
        if OUTPUT not in made_by:
            items = self.returned.items()
            self.returned = {_FIRST_OUTPUT if name == OUTPUT else name: each for name, each in items}
        if not made_by:
            self.keep(OUTPUT, module, end)
        return made_by[0] if made_by else OUTPUT

    def _mark(self, module: nn.Module, tensor: Tensor | None) -> None:
        units = declared_units(module)
        if tensor is not None and units is not None:
            self.moment += 1
            self.marks[tensor.shape].append(_Mark(self.moment, tensor, units))

    def units(self, moment: int, value: Value) -> int | None:
        tensor = value.tensor
        same = self.marks[tensor.shape]
        own = [mark for mark in same if mark.tensor is tensor]
        if not (own or same):
            maps = [*self.marks, *(source.tensor.shape for source in value.sources)]
            is_map = tensor.ndim == 3 and any(map(self._has_sides_of(tensor), maps))
            return None if is_map else 1 if tensor.ndim == 4 else -1
        return min(own or same, key=lambda mark: abs(mark.moment - moment)).units

    def _has_sides_of(self, tensor: Tensor) -> Callable[[torch.Size], bool]:
        """Whether maps of a shape have the sides of ``tensor``, and their units in dimension 1."""
        sides = tensor.shape[1:]
        return lambda shape: (
            len(shape) == 4
            and shape[2:] == sides
            and all(mark.units == 1 for mark in self.marks.get(shape, ()))
        )


@dataclass(frozen=True)
class LayerDiscovery:
    """The layers of a network. ``layers``: in the order of the pass. ``layouts``: how to arrange what each
    returns. ``unlisted``: every other module or call, with the reason why it is no layer. ``output``: name of
    the layer that is the network's output. ``unreached``: what a layer calls that the slope does not reach
    (`proxygrad.networks.discovery.reach`). ``output_function``: of torch, that made the output, as `softmax`;
    else empty.
    """

    layers: tuple[LayerInfo, ...]
    layouts: Mapping[str, TensorLayout]
    unlisted: Mapping[str, str]
    output: str
    unreached: Mapping[str, str]
    output_function: str


def discover_layers(module: nn.Module, inputs: Tensor, names: Mapping[str, nn.Module]) -> LayerDiscovery:
    """Run ``module`` on one image and list the calls of the modules in ``names``, the later ones as
    ``name@2``, ``name@3``, …; ``output`` where the network's output is none of theirs.

    ``inputs``: ``(1, C, H, W)``, of an image that requires gradients: what then requires none does not depend
    on the image. No hook is left behind, whatever happens. Raises what the module raises.
    """
    found = _pass(module, inputs, names)
    if any(layer.kind in ("feature_map", "tokens") and len(set(layer.shape)) == 1 for layer in found.layers):
        with suppress(Exception):  # a network for one size only
            wide = _pass(module, inputs.repeat(1, 1, 1, 2), names)
            return _described_by(found, wide)
    return found


def _pass(module: nn.Module, inputs: Tensor, names: Mapping[str, nn.Module]) -> LayerDiscovery:
    log = _Log({each: name for name, each in names.items()}, Reach(inputs))
    with ExitStack() as hooks:
        for each in log.names:
            hooks.callback(each.register_forward_pre_hook(log.before).remove)
            hooks.callback(each.register_forward_hook(log.after).remove)
        hooks.enter_context(surrogate(SLOPE))  # the values are the same, and what it misses shows
        hooks.enter_context(log.reach)
        hooks.enter_context(log.tracer)
        end = first_tensor(module(inputs))
    output = log.end(module, end)
    log.reach.leave(end)
    return _listed(log, end, output)


def _described_by(found: LayerDiscovery, wide: LayerDiscovery) -> LayerDiscovery:
    """``found`` with the layouts of ``wide`` for layers whose sides are all equal: their shapes stay true."""
    equal = {layer.name for layer in found.layers if len(set(layer.shape)) == 1}
    known = {name: layout for name, layout in wide.layouts.items() if name in equal}
    return replace(found, layouts={**found.layouts, **known})


def _listed(log: _Log, end: Tensor | None, output: str) -> LayerDiscovery:
    layers, layouts = [], {}
    unlisted = dict.fromkeys(log.names.values(), "does not run when the network does")
    if OUTPUT in unlisted:
        unlisted[_FIRST_OUTPUT] = unlisted.pop(OUTPUT)
    for name, (moment, module, value, _) in log.returned.items():
        if value is None or (problem := _problem(value.tensor)):
            unlisted[name] = "returns no floating-point tensor" if value is None else problem
            continue
        unlisted.pop(_FIRST_OUTPUT if module is log.child_output else name, None)
        tensor = value.tensor
        layout = TensorLayout(0 if tensor.shape[0] == 1 else 1, log.units(moment, value))
        layouts[name] = layout
        kind = "output" if name == OUTPUT and module not in log.names else type(module).__name__
        stage, activation = value.place
        described = _describe(name, kind, layout.arrange(tensor), tensor is end)
        layers.append(described.model_copy(update={"stage": stage, "activation": activation}))
    made = "" if end is None else log.tracer.value(end).function
    return LayerDiscovery(tuple(layers), layouts, unlisted, output, log.reach.missed, made)


def _version(tensor: Tensor) -> int:
    """How often ``tensor`` was written over; those of `torch.inference_mode` do not count it."""
    return 0 if tensor.is_inference() else tensor._version


def _problem(value: Tensor) -> str:
    """Why what a module returned for one image holds no units; empty where it does."""
    if value.layout != torch.strided:
        return f"returns a tensor of layout {value.layout}, not a dense one"
    shape = tuple(value.shape)
    if value.ndim not in (2, 3, 4):
        return f"returns shape {shape} for one image: neither a map, nor tokens, nor a vector"
    if value.shape[0] != 1 and (value.ndim != 3 or value.shape[1] != 1):
        return f"returns shape {shape} for one image: no dimension is the batch"
    return "" if value.requires_grad else "does not depend on the image"


def _describe(name: str, kind: str, arranged: Tensor, is_output: bool) -> LayerInfo:
    kinds: dict[int, LayerKind] = {4: "feature_map", 3: "tokens", 2: "logits" if is_output else "vector"}
    shape = tuple(arranged.shape[1:])
    units = shape[-1] if len(shape) == 2 else shape[0]
    return LayerInfo(name=name, kind=kinds[arranged.ndim], type=kind, shape=shape, units=units)
