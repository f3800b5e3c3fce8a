"""A network made ready: frozen, with its layers listed, and cut at the layer that is asked about."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from proxygrad.errors import NetworkError, SizeUnsupported, UnknownLayer
from proxygrad.objectives import OUTPUT
from proxygrad.spec import LayerInfo, LayerKind, ModelInfo
from proxygrad.version import ENGINE_VERSION


class _Reached(BaseException):
    """Ends a forward pass at its target. No `Exception`: a network that catches those must not stop it."""

    def __init__(self, activation: Any) -> None:
        self.activation = activation


class Network:
    """A private, frozen copy of ``module`` in evaluation mode, with what is needed to feed it images.

    ``module``: any floating-point `torch.nn.Module` that takes one tensor ``(B, C, H, W)``; it is copied and
    never changed. ``input_shape``: ``(C, H, W)`` it was made for, C = 1 or 3. ``mean``, ``std``: per channel;
    images in [0, 1] are normalised with them before the network (default 0 and 1). ``classes``: names of the
    logits. ``origin``: where the module came from, e.g. its builder; part of the digest.

    Raises `NetworkError` when the module cannot be copied, is not floating-point, holds non-finite weights,
    or fails on an image of ``input_shape``.

    Not for use by several threads at once.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: tuple[int, int, int] = (3, 224, 224),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        name: str = "network",
        classes: Sequence[str] | None = None,
        origin: str = "",
        device: str | torch.device = "cpu",
    ) -> None:
        channels = input_shape[0]
        if channels not in (1, 3):
            raise NetworkError(
                f"input_shape {input_shape} has {channels} channels; images have 1 (grey) or 3 (RGB)"
            )
        self.name = name
        self.input_shape = input_shape
        self.classes = tuple(classes) if classes is not None else None
        self.origin = origin
        self.device = _device(device)
        self._mean = _per_channel("mean", mean or [0.0] * channels, channels).to(self.device)
        self._std = _per_channel("std", std or [1.0] * channels, channels).to(self.device)
        if not bool((self._std > 0).all()):
            raise NetworkError(f"std {list(std or [])} must be positive")
        self.module = _frozen_copy(module).to(self.device)
        self._shapes: dict[tuple[str, tuple[int, int]], tuple[int, ...]] = {}

    def activations(self, images: Tensor, layer: str) -> Tensor:
        """What ``layer`` returns for ``images`` ``(B, C, H, W)`` in [0, 1]: ``(B, units, …)``, before softmax
        or whatever else follows; the network runs no further than that layer. Differentiable.

        Raises `UnknownLayer`, or `NetworkError` when the layer does not run or returns no tensor.
        """
        inputs = (images - self._mean) / self._std
        if layer == OUTPUT and layer not in self._modules:
            return _tensor(self.module(inputs), layer)
        handle = self._module(layer).register_forward_hook(_stop)
        try:
            self.module(inputs)
        except _Reached as reached:
            return _tensor(reached.activation, layer)
        finally:
            handle.remove()
        raise NetworkError(f"layer {layer!r} does not run when the network does")

    def layer_shape(self, layer: str, size: tuple[int, int]) -> tuple[int, ...]:
        """Shape of ``layer``'s output without the batch, for images of ``size`` (height, width) in pixels.

        Raises `SizeUnsupported` when the network fails on such an image.
        """
        if (layer, size) not in self._shapes:
            images = torch.full((1, self.input_shape[0], *size), 0.5, device=self.device)
            try:
                with torch.no_grad():
                    activation = self.activations(images, layer)
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                height, width = size
                raise SizeUnsupported(
                    f"model {self.name!r} cannot take an image of {height}x{width} px up to layer {layer!r} "
                    f"(its own size is {self.input_shape[1]}x{self.input_shape[2]}): {error}"
                ) from error
            self._shapes[layer, size] = tuple(activation.shape[1:])
        return self._shapes[layer, size]

    def units(self) -> tuple[LayerInfo, ...]:
        """Every addressable layer, in the order of the forward pass: feature maps, vectors and the logits."""
        return self.info.layers

    @cached_property
    def info(self) -> ModelInfo:
        """What this network offers: its layers, units, classes and digest."""
        return ModelInfo(
            name=self.name,
            input_shape=self.input_shape,
            classes=self.classes,
            digest=self._digest(),
            engine_version=ENGINE_VERSION,
            layers=tuple(self._survey()),
        )

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        return dict(self.module.named_modules())

    def _module(self, layer: str) -> nn.Module:
        if not layer or layer not in self._modules:
            raise UnknownLayer(layer, [info.name for info in self.info.layers], self.name)
        return self._modules[layer]

    def _survey(self) -> list[LayerInfo]:
        """Runs the whole network once on grey and notes what each module returned at its first call."""
        returned: dict[str, Any] = {}

        def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                returned.setdefault(name, output)

            return hook

        handles = [module.register_forward_hook(note(name)) for name, module in self._modules.items() if name]
        images = torch.full((1, *self.input_shape), 0.5, device=self.device)
        try:
            with torch.no_grad():
                output = self.module((images - self._mean) / self._std)
        except Exception as error:
            shape = "x".join(map(str, self.input_shape))
            raise NetworkError(f"model {self.name!r} fails on an image of shape {shape}: {error}") from error
        finally:
            for handle in handles:
                handle.remove()
        if OUTPUT not in self._modules and not any(each is output for each in returned.values()):
            returned[OUTPUT] = output
        layers = [
            _describe(name, self._modules.get(name), value, value is output)
            for name, value in returned.items()
        ]
        return [layer for layer in layers if layer is not None]

    def _digest(self) -> str:
        """SHA-256 over all weights and buffers, the origin and the normalisation."""
        digest = hashlib.sha256()
        header = [self.origin, self.input_shape, self._mean.flatten().tolist(), self._std.flatten().tolist()]
        digest.update(repr(header).encode())
        for key, value in sorted(self.module.state_dict().items()):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise NetworkError(f"device {str(device)!r} cannot be used: {reason}") from error
    return found


def _frozen_copy(module: nn.Module) -> nn.Module:
    try:
        duplicate = copy.deepcopy(module)
    except Exception as error:
        raise NetworkError(f"cannot copy the module {type(module).__name__}: {error}") from error
    duplicate.eval().requires_grad_(False)
    for name, parameter in duplicate.named_parameters():
        if not parameter.is_floating_point():
            raise NetworkError(
                f"parameter {name!r} is {parameter.dtype}; only floating-point networks have gradients"
            )
    for name, value in duplicate.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise NetworkError(f"{name!r} holds values that are not finite")
    return duplicate.float()


def _per_channel(what: str, values: Sequence[float], channels: int) -> Tensor:
    if len(values) != channels:
        raise NetworkError(
            f"{what} {list(values)} has {len(values)} values; the input has {channels} channels"
        )
    return torch.tensor(values, dtype=torch.float32).view(1, channels, 1, 1)


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _Reached(output)


def _tensor(value: Any, layer: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise NetworkError(f"layer {layer!r} returns a {type(value).__name__}, not a tensor")
    return value


def _describe(name: str, module: nn.Module | None, value: Any, is_output: bool) -> LayerInfo | None:
    """None for what cannot be asked about: no tensor, or neither a feature map nor a vector."""
    kinds: dict[int, LayerKind] = {4: "feature_map", 2: "logits" if is_output else "vector"}
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in kinds:
        return None
    shape = tuple(value.shape[1:])
    kind = type(module).__name__ if module is not None else "output"
    return LayerInfo(name=name, kind=kinds[value.ndim], type=kind, shape=shape, units=shape[0])
