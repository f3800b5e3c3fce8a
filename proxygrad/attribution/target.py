"""The target: what is attributed, as a function from the network's input to one number for each row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from proxygrad.errors import InvalidRequest, NetworkError, UnknownLayer
from proxygrad.networks.ambient import seeded
from proxygrad.networks.capture import ModuleCall, capture_activations
from proxygrad.networks.module_copy import private_copy
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Activations, Objective
from proxygrad.objectives.function import FunctionObjective
from proxygrad.objectives.units import Channel, Logit, Neuron
from proxygrad.spec.models import OUTPUT


class ModuleReader:
    """A raw module whose layers are read, for inputs of any shape; what `Network` is for images.

    ``module``: copied in ``dtype``, and never changed.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.module = private_copy(module, _device_of(module), dtype)
        self.name = type(module).__name__
        self.modules = {name: each for name, each in self.module.named_modules() if name}
        self.device = _device_of(module)

    def read(self, inputs: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """What each of ``layers`` returns, as it returns it; random numbers and buffers as in each pass."""
        calls = {layer: self._call(layer) for layer in layers}
        with seeded(self.device), _same_buffers(self.module):
            return capture_activations(self.module, inputs, calls)

    def _call(self, layer: str) -> ModuleCall | None:
        if layer == OUTPUT:
            return None
        name, _, number = layer.partition("@")
        if name not in self.modules or (number and not number.isdecimal()):
            raise UnknownLayer(layer, [*self.modules], self.name)
        return ModuleCall(self.modules[name], int(number or 1))


@contextmanager
def _same_buffers(module: nn.Module) -> Iterator[None]:
    """Within, the buffers are copies: what a pass writes to them, the next one does not find."""
    kept = [(each, name, buffer) for each in module.modules() for name, buffer in each._buffers.items()]
    copies = {id(buffer): buffer.clone() for _, _, buffer in kept if buffer is not None}
    for owner, name, buffer in kept:
        owner._buffers[name] = copies.get(id(buffer))
    try:
        yield
    finally:
        for owner, name, buffer in kept:
            owner._buffers[name] = buffer


def _device_of(module: nn.Module) -> torch.device:
    return next((each.device for each in module.parameters()), torch.device("cpu"))


@dataclass(frozen=True)
class MeanNormalized(Objective):
    """An objective of one unit, less its mean over all units of the layer.

    Of logits: what softmax depends on (Shrikumar et al., arXiv 1704.02685, section 3.6).
    """

    objective: Objective

    @property
    def layers(self) -> tuple[str, ...]:
        """Those of the objective."""
        return self.objective.layers

    def at(self, shapes: Mapping[str, tuple[int, ...]]) -> MeanNormalized:
        """The objective completed. Raises `InvalidRequest` for one that measures no unit."""
        completed = self.objective.at(shapes)
        if completed.unit is None:
            raise InvalidRequest(f"normalize_logits needs an objective of one unit, not {self.objective!r}")
        return MeanNormalized(completed)

    def __call__(self, activations: Activations) -> Tensor:
        """``{layer: (B, …)}`` → ``(B,)``."""
        units = self.objective.per_unit(activations)
        assert units is not None
        return self.objective(activations) - units.mean(dim=1)


def objective_of(given: Any, reader: ModuleReader, inputs: Tensor) -> Objective:
    """The objective that a string, a function or an `Objective` means for a raw module."""
    if isinstance(given, Objective):
        return given
    if isinstance(given, str):
        return _from_text(given, reader, inputs)
    if callable(given):
        one = inputs[:1]
        return FunctionObjective.of(given, lambda layer: reader.read(one, [layer])[layer])
    raise InvalidRequest(
        f"objective {given!r} is of type {type(given).__name__}; valid: 'layer:unit', a function"
    )


def _from_text(text: str, reader: ModuleReader, inputs: Tensor) -> Objective:
    layer, colon, rest = text.rpartition(":")
    found = re.fullmatch(r"(\d+)(?:@(\d+(?:,\d+)*))?", rest.replace(" ", ""))
    if not colon or found is None:
        raise InvalidRequest(f"objective {text!r} names no unit; valid: 'layer:unit', as 'output:3'")
    unit = int(found[1])
    if found[2]:
        return Neuron(layer, unit, tuple(map(int, found[2].split(","))))
    with torch.no_grad():
        ndim = reader.read(inputs[:1], [layer])[layer].ndim
    if ndim == 2:
        return Logit(layer, unit)
    return Channel(layer, unit)


class Target:
    """One number for each row of a batch: ``target(inputs)``, ``(R, *S)`` → ``(R,)``, differentiable.

    ``subject``: a `Network` or a `ModuleReader`. ``objectives``: one for each row.
    """

    def __init__(self, subject: Network | ModuleReader, objectives: Sequence[Objective]) -> None:
        self.subject = subject
        self.objectives = tuple(objectives)

    def __call__(self, inputs: Tensor) -> Tensor:
        """``(R, *S)`` → ``(R,)``."""
        distinct = list(dict.fromkeys(self.objectives))
        layers = list(dict.fromkeys(layer for each in distinct for layer in each.layers))
        activations = self.subject.read(inputs, layers)
        if len(distinct) == 1:
            return distinct[0](activations)
        values, order = [], list[int]()
        for objective in distinct:
            rows = [row for row, each in enumerate(self.objectives) if each == objective]
            values.append(objective({layer: activations[layer][rows] for layer in objective.layers}))
            order += rows
        back = torch.tensor(order).argsort().to(inputs.device)
        return torch.cat(values)[back]

    def of_rows(self, rows: Sequence[int]) -> Target:
        """The same for these of the rows, in this order."""
        return Target(self.subject, [self.objectives[row] for row in rows])

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules that run, by name."""
        return {name: each for name, each in self.subject.module.named_modules() if name}

    def check_layer(self, layer: str) -> None:
        """Raises `UnknownLayer` for one that the network lacks."""
        if isinstance(self.subject, Network):
            self.subject.layer(layer)
        elif layer.partition("@")[0] not in self.subject.modules:
            raise UnknownLayer(layer, [*self.subject.modules], self.subject.name)

    def arranged(self, layer: str, value: Tensor, rows: int) -> Tensor:
        """What a layer returned with the batch first. Raises `NetworkError` where it is not one each."""
        if isinstance(self.subject, Network):
            value = self.subject.arranged(layer, value)
        if not value.ndim or value.shape[0] != rows:
            raise NetworkError(
                f"layer {layer!r} returns shape {tuple(value.shape)} for {rows} row(s), not one each"
            )
        return value


Reading = Callable[[Tensor], Tensor]
