"""`Network`: a frozen copy of a torch module with named layers, which runs no further than the layer read."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from proxygrad.errors import InvalidRequest, NetworkError, ProxyGradError, SizeUnsupported, UnknownLayer
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.networks.ambient import Draws, differentiable
from proxygrad.networks.batching import Batching, find_batching
from proxygrad.networks.capture import ModuleCall
from proxygrad.networks.discovery.layers import LayerDiscovery, discover_layers
from proxygrad.networks.discovery.reach import unreached_notes
from proxygrad.networks.layer_reader import LayerReader, prepare
from proxygrad.networks.layer_table import LayerTable
from proxygrad.networks.module_copy import private_copy
from proxygrad.networks.preprocessing import PerChannel, per_channel, with_own_preprocessing
from proxygrad.networks.rebinding import originals_called
from proxygrad.networks.variants import Variant, VariantFactory
from proxygrad.precision import Precision, arithmetic
from proxygrad.spec.models import OUTPUT, LayerInfo, ModelInfo
from proxygrad.version import ENGINE_VERSION

log = logging.getLogger(__name__)

#: Why the images of a network that draws random numbers are run one by one.
DRAWS = "it draws random numbers"


class Network:
    """A private, frozen copy of ``module`` in evaluation mode, which takes images in [0, 1].

    ``module``: any floating-point `torch.nn.Module` that takes one tensor ``(B, C, H, W)``; it is copied, in
    float32 (`proxygrad.networks.module_copy`), and never changed. ``input_shape``: ``(C, H, W)`` it was made
    for, C = 1 (gray), 3 (RGB), or any other number, for which there are images but no PNG. ``mean``, ``std``:
    images in [0, 1] are normalized with them before the network; a number, or a list, array or tensor with
    one for each channel. ``classes``: names of the logits. ``origin``: where the module came from, e.g. its
    builder; part of the digest.

    Models of torchvision and timm bring their own ``input_shape``, ``mean`` and ``std``, which a log line
    states (`proxygrad.networks.preprocessing`); others default to ``(3, 224, 224)``, 0 and 1.

    A layer is one call of one module, by its dotted name; the second call of the same module in a forward
    pass is ``name@2``, counted from 1 as the calls return, so ``name`` is ``name@1``. Of several tensors that
    a module returns the first counts. Activations come with the batch first: feature maps
    ``(B, units, rows, columns)``, tokens ``(B, tokens, units)``, vectors ``(B, units)``;
    `proxygrad.networks.discovery.layers` says how it is known which dimension holds the units.

    Raises `NetworkError` when the module cannot be copied, or its copy calls the original, when it is not
    floating-point, holds non-finite weights, or fails on an image of ``input_shape``.

    Not for use by several threads at once.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: tuple[int, int, int] | None = None,
        mean: PerChannel | None = None,
        std: PerChannel | None = None,
        *,
        name: str = "network",
        classes: Sequence[str] | None = None,
        origin: str = "",
        device: str | torch.device = "cpu",
    ) -> None:
        input_shape, mean, std = with_own_preprocessing(module, input_shape, mean, std)
        channels = input_shape[0]
        if channels < 1:
            raise NetworkError(f"input_shape {input_shape} has {channels} channels; images have 1 or more")
        self.name = name
        self.input_shape = input_shape
        self.classes = tuple(classes) if classes is not None else None
        self.origin = origin
        self.device = _device(device)
        with differentiable():
            self._mean = per_channel("mean", mean, channels).to(self.device)
            self._std = per_channel("std", std, channels).to(self.device)
            if not bool((self._std > 0).all()):
                raise NetworkError(f"std {self._std.flatten().tolist()} must be positive")
            self.module = private_copy(module, self.device)
            self._modules = {each: child for each, child in self.module.named_modules() if each}
            with originals_called(module, self.module) as called:
                self._exact, self._discovery = self._discover()
            if called:
                raise NetworkError(_not_copied(name, called))
        self._variants = VariantFactory(self._exact, self._sample)
        self._readers: dict[tuple[tuple[str, ...], Precision], LayerReader] = {}
        self._shapes: dict[tuple[str, tuple[int, int]], tuple[int, ...]] = {}
        self._discriminator: Discriminator | None = None

    def read(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """What each of ``layers`` returns for ``images`` ``(B, C, H, W)`` in [0, 1], batch first, in one
        forward pass that runs no further than the last of them. Differentiable.

        Values are those at the moment the layer returned, also where an in-place operation behind it
        overwrites them; in float32, of the network as it is. Raises `UnknownLayer`, or `NetworkError` when a
        layer does not run, returns no tensor, or returns something that is not made of one entry for each
        image.
        """
        with arithmetic("float32", self.device):
            return self._read(self._exact, images, layers)

    def prepared(self, layers: Sequence[str], precision: Precision = "auto") -> LayerReader:
        """`read` for many passes over the same ``layers``: on a variant of the network that is faster.

        ``precision``: see `proxygrad.precision.chosen`; `LayerReader.dtype` is the one chosen. The variant is
        made, and compared with the network, on the first call, then cached. Raises `UnknownLayer`, or
        `NetworkError` for a precision that the network or device lacks.
        """
        key = (tuple(layers), precision)
        if key not in self._readers:
            calls = [self._call(layer, self._exact) for layer in layers]
            names = {each: name for name, each in self._modules.items()}
            names_read = {names[call.module] if call else "" for call in calls}
            read = partial(self._read, layers=key[0])
            with torch.inference_mode(False):
                self._readers[key] = prepare(self._variants, names_read, precision, read)
        return self._readers[key]

    def activations(self, images: Tensor, layer: str) -> Tensor:
        """`read` for a single layer."""
        return self.read(images, [layer])[layer]

    def layer_shape(self, layer: str, size: tuple[int, int]) -> tuple[int, ...]:
        """Shape of ``layer``'s output without the batch, for images of ``size`` (height, width) in pixels.

        Raises what `layer` raises, and `SizeUnsupported` when the network fails on such an image.
        """
        if (layer, size) not in self._shapes:
            self.layer(layer)
            shape = (1, self.input_shape[0], *size)
            images = torch.full(shape, 0.5, dtype=torch.float32, device=self.device)
            try:
                with torch.no_grad():
                    activation = self.activations(images, layer)
            except ProxyGradError:
                raise
            except Exception as error:
                height, width = size
                raise SizeUnsupported(
                    f"model {self.name!r} cannot take an image of {height}x{width} px up to layer {layer!r} "
                    f"(its own size is {self.input_shape[1]}x{self.input_shape[2]}): {error}"
                ) from error
            self._shapes[layer, size] = tuple(activation.shape[1:])
        return self._shapes[layer, size]

    def in_float64(self) -> Network:
        """The same network, layers and weights, computing in float64."""
        twin = copy.copy(self)
        twin.module = private_copy(self.module, self.device, torch.float64)
        twin._mean, twin._std = self._mean.double(), self._std.double()
        twin._modules = {each: child for each, child in twin.module.named_modules() if each}
        twin._exact = Variant(twin.module, twin._modules, draws=self._exact.draws)
        twin._variants = VariantFactory(twin._exact, twin._sample)
        twin._readers, twin._shapes = {}, {}
        return twin

    def arranged(self, layer: str, value: Tensor) -> Tensor:
        """What ``layer`` returns, with the batch first and the units where objectives expect them."""
        layout = self._discovery.layouts.get(self._plain(layer))
        return layout.arrange(value) if layout else value

    @property
    def layers(self) -> LayerTable:
        """Every addressable layer, in the order of the forward pass; prints as a table."""
        return LayerTable(self.info.layers)

    def __getitem__(self, layer: str) -> LayerInfo:
        """One layer by its name, as `layer` finds it: ``network["features.7"].units``."""
        if not isinstance(layer, str):
            raise InvalidRequest(f"layer {layer!r} is of type {type(layer).__name__}; valid: its name")
        return self.layer(layer)

    __iter__ = None  # `layers` can be looped over; without this, Python would try network[0], network[1], …

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"Network({self.name!r}, input {shape}, {len(self.layers)} layers{classes}, on {self.device})"

    @property
    def unlisted(self) -> dict[str, str]:
        """Modules and calls that `layers` leaves out, each with the reason."""
        return dict(self._discovery.unlisted)

    @property
    def unreached(self) -> dict[str, str]:
        """By module, what works like a rectifier, or may do so, and keeps a gradient of its own: a
        `torch.autograd.Function`, TorchScript, an unusual mask. The name of the network itself is empty."""
        return dict(self._discovery.unreached)

    @property
    def output_function(self) -> str:
        """The function of torch that made the output, such as `linear` or `softmax`; empty where unknown."""
        return self._discovery.output_function

    @cached_property
    def batching(self) -> Batching:
        """How its images may be batched, found by a few passes on the first use. Raises `NetworkError` when
        the network returns something else for the same image each time."""
        with differentiable(), arithmetic("float32", self.device):
            found = self._tried_batching()
        if found.alone:
            log.info("%s: images are run one by one: %s", self.name, found.alone)
        return found

    def layer(self, name: str) -> LayerInfo:
        """The layer that ``name`` stands for: ``x@1`` is ``x``, and `output` is the layer that returns it.

        Raises `UnknownLayer` with near names, or `NetworkError` with the reason for one that is not listed.
        """
        plain = self._plain(name)
        if (reason := self._discovery.unlisted.get(plain)) is not None:
            raise NetworkError(f"layer {name!r} {reason}")
        return self.info.layer(plain)

    @cached_property
    def info(self) -> ModelInfo:
        """The network's metadata: layers, units, classes and digest."""
        return ModelInfo(
            name=self.name,
            input_shape=self.input_shape,
            classes=self.classes,
            digest=self._digest(),
            engine_version=ENGINE_VERSION,
            layers=self._discovery.layers,
        )

    @property
    def discriminator(self) -> Discriminator | None:
        """What tells real images from generated ones, for `sampler: "langevin"`; may be set, and None.

        The network keeps a frozen copy. Raises `NetworkError` for one of another input shape.
        """
        return self._discriminator

    @discriminator.setter
    def discriminator(self, given: Discriminator | None) -> None:
        if given is not None and given.input_shape != self.input_shape:
            raise NetworkError(
                f"the discriminator takes images of {given.input_shape}, model {self.name!r} of "
                f"{self.input_shape}"
            )
        self._discriminator = given and given.frozen(self.device)
        self.info = self.info.model_copy(update={"discriminator": given and given.digest})

    def _discover(self) -> tuple[Variant, LayerDiscovery]:
        """The network as it is, and its layers."""
        gray = torch.full((1, *self.input_shape), 0.5, dtype=torch.float32, device=self.device)
        once = partial(discover_layers, self.module, names=self._modules)
        exact = Variant(self.module, self._modules)
        try:
            for calls in (False, True):
                with Draws(self.device, calls) as draws:
                    found = exact.run(once, self._normalized(gray.requires_grad_()))
                if not draws.doubtful:
                    break
            if draws.any:
                exact.draws = True
                found = exact.run(once, self._normalized(gray))
        except Exception as error:
            shape = "x".join(map(str, self.input_shape))
            raise NetworkError(f"model {self.name!r} fails on an image of shape {shape}: {error}") from error
        if not found.layers:
            reasons = "; ".join(f"layer {name!r} {reason}" for name, reason in found.unlisted.items())
            raise NetworkError(f"model {self.name!r} has no layers: {reasons or 'no modules'}")
        for note in unreached_notes(found.unreached):
            log.warning("%s: %s", self.name, note)
        return exact, replace(found, unlisted={**found.unlisted, **self._aliases(found)})

    def _tried_batching(self) -> Batching:
        """What `find_batching` finds. Notes random numbers that only a batch, or only some images, draw."""
        images = self._random_images(4)
        images[2], images[3] = images[2] / 4, 0.75 + images[3] / 4  # dark, bright
        inputs = self._normalized(images).requires_grad_()
        run = partial(self._exact.run, self.module)
        for calls in (False, True):
            draws = Draws(self.device, calls)
            try:
                with draws:
                    found = find_batching(run, self._modules, self._discovery.layouts, inputs)
            except NetworkError:
                if not draws.any:
                    raise
            else:
                if not draws.any:
                    return Batching(alone=DRAWS) if self._exact.draws else found
            if not draws.doubtful:
                break
        self._exact.draws = True
        return Batching(alone=DRAWS)

    def _aliases(self, found: LayerDiscovery) -> dict[str, str]:
        """Further names of modules, which say nothing of the call that is meant."""
        names = {module: name for name, module in self._modules.items()}
        aliases = dict[str, str]()
        for name, module in self.module.named_modules(remove_duplicate=False):
            if name and name not in self._modules and module in names:
                own = names[module]
                calls = [repr(label) for label in found.layouts if label.partition("@")[0] == own]
                listed = ", ".join(calls) or "none is listed"
                aliases[name] = f"is module {own!r} under another name; its calls: {listed}"
        return aliases

    def _read(self, variant: Variant, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        if len(images) > 1 and self.batching.alone:
            each = [self._read(variant, image, layers) for image in images.split(1)]
            return {layer: torch.cat([found[layer] for found in each]) for layer in layers}
        calls = {layer: self._call(layer, variant) for layer in layers}
        found = variant.read(self._normalized(images), calls)
        return {layer: self._arranged(layer, value, images) for layer, value in found.items()}

    def _sample(self) -> Tensor:
        """Two random images, always the same ones, normalized; one where images are run one by one."""
        return self._normalized(self._random_images(1 if self.batching.alone else 2))

    def _random_images(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand((count, *self.input_shape), generator=generator, dtype=torch.float32)
        return images.to(self.device)

    def _normalized(self, images: Tensor) -> Tensor:
        return (images.to(self._mean.dtype) - self._mean) / self._std

    def _call(self, layer: str, variant: Variant) -> ModuleCall | None:
        """The call that ``layer`` names in a variant of the network; None is the output."""
        if layer == OUTPUT:
            return None
        if layer in variant.modules:
            return ModuleCall(variant.modules[layer], 1)
        name, _, number = layer.rpartition("@")
        if name in variant.modules and number.isdecimal() and int(number) > 0:
            return ModuleCall(variant.modules[name], int(number))
        if (reason := self._discovery.unlisted.get(layer)) is not None:
            raise NetworkError(f"layer {layer!r} {reason}")
        raise UnknownLayer(layer, [info.name for info in self.info.layers], self.name)

    def _plain(self, layer: str) -> str:
        """The listed name of a layer: ``x`` for ``x@1``, the layer behind `output`."""
        if layer == OUTPUT:
            return self._discovery.output
        known = layer in self._discovery.layouts or layer in self._discovery.unlisted
        return layer if known else layer.removesuffix("@1")

    def _arranged(self, layer: str, value: Tensor, images: Tensor) -> Tensor:
        """``value`` with the batch first and the units where objectives expect them."""
        value = self.arranged(layer, value)
        if value.ndim and value.shape[0] == len(images):
            return value
        if images.requires_grad and not value.requires_grad:
            raise NetworkError(f"layer {layer!r} does not depend on the image")
        shape = tuple(value.shape)
        raise NetworkError(
            f"layer {layer!r} returns shape {shape} for {len(images)} image(s), not one entry each"
        )

    def _digest(self) -> str:
        """SHA-256 over all weights and buffers, the origin and the normalization."""
        digest = hashlib.sha256()
        header = [self.origin, self.input_shape, self._mean.flatten().tolist(), self._std.flatten().tolist()]
        digest.update(repr(header).encode())
        for key, value in sorted(self.module.state_dict().items()):
            if not isinstance(value, Tensor):  # a module's extra state: any object, with no bytes to speak of
                digest.update(f"{key} {type(value).__name__}\n".encode())
                continue
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            plain = torch.view_as_real(value) if value.is_complex() else value
            digest.update(plain.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _not_copied(model: str, called: dict[str, nn.Module]) -> str:
    names = ", ".join(f"{name or 'itself'!r} ({type(each).__name__})" for name, each in called.items())
    return (
        f"model {model!r} cannot be copied: its copy still calls the original's {names}, as from an "
        "attribute of a class or a global table; let the network hold it as an attribute of its own"
    )


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise NetworkError(f"device {str(device)!r} cannot be used: {reason}") from error
    return found
