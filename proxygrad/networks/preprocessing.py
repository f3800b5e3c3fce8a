"""The input that a module was trained on, where the module says so: torchvision's and timm's do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from proxygrad.errors import NetworkError

log = logging.getLogger(__name__)

#: A number, or one for each channel.
PerChannel = float | Sequence[float] | np.ndarray[Any, Any] | Tensor

#: Mean and standard deviation of ImageNet's RGB values in [0, 1]: those of the transforms of torchvision's
#: classification weights (torchvision/transforms/_presets.py, `ImageClassification`).
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


#: Packages of torchvision.models that take something else than a batch of images.
_OTHER_INPUTS = ("detection", "optical_flow", "video")


class Preprocessing(NamedTuple):
    """The shape ``(C, H, W)``, mean and standard deviation of a network's images, whose values are in [0, 1].

    ``source``: the library that says so.
    """

    input_shape: tuple[int, int, int]
    mean: PerChannel
    std: PerChannel
    source: str


def preprocessing_of(module: nn.Module) -> Preprocessing | None:
    """What a module of timm (by its ``pretrained_cfg``) or torchvision expects; None for any other."""
    for name in ("pretrained_cfg", "default_cfg"):
        found = _timm(getattr(module, name, None))
        if found is not None:
            return found
    return _torchvision(module)


def with_own_preprocessing(
    module: nn.Module,
    input_shape: tuple[int, int, int] | None,
    mean: PerChannel | None,
    std: PerChannel | None,
) -> tuple[tuple[int, int, int], PerChannel, PerChannel]:
    """What is not given is the module's own where it is known, else 3 x 224 x 224 px, mean 0 and std 1."""
    own = preprocessing_of(module)
    if own is None or (input_shape is not None and input_shape[0] != own.input_shape[0]):
        own = Preprocessing((3, 224, 224), 0.0, 1.0, "")
    elif mean is None or std is None:
        log.info("%s: input %s, mean %s and std %s of %s", type(module).__name__, *own)
    return (
        input_shape if input_shape is not None else own.input_shape,
        mean if mean is not None else own.mean,
        std if std is not None else own.std,
    )


def _timm(config: Any) -> Preprocessing | None:
    """Of a mapping, or an object, with ``input_size``, ``mean`` and ``std``."""
    names = ("input_size", "mean", "std")
    shape, mean, std = (
        config.get(name) if isinstance(config, Mapping) else getattr(config, name, None) for name in names
    )
    if shape is None or mean is None or std is None:
        return None
    channels, height, width = map(int, shape)
    return Preprocessing((channels, height, width), tuple(map(float, mean)), tuple(map(float, std)), "timm")


def _torchvision(module: nn.Module) -> Preprocessing | None:
    """Of an image model of torchvision; its weights say the same but for the names here."""
    home, kind = type(module).__module__, type(module).__name__
    if not home.startswith("torchvision.models.") or home.split(".")[2] in _OTHER_INPUTS:
        return None
    mean, std = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if _is_efficientnet_v2_l(module) else IMAGENET
    side_px = int(getattr(module, "image_size", 299 if kind == "Inception3" else 224))
    return Preprocessing((3, side_px, side_px), mean, std, "torchvision")


def _is_efficientnet_v2_l(module: Any) -> bool:
    """The one classifier whose weights have other transforms: fused blocks behind a stem of 32 channels."""
    if type(module).__name__ != "EfficientNet":
        return False
    stem, first = module.features[0][0], module.features[1][0]
    return type(first).__name__ == "FusedMBConv" and stem.out_channels == 32


def per_channel(what: str, given: PerChannel, channels: int) -> Tensor:
    """A number, or one for each channel, as ``(1, C, 1, 1)`` float32."""
    values = torch.as_tensor(given, dtype=torch.float32, device="cpu").detach()
    values = values.flatten() if values.ndim else values.expand(channels)
    if len(values) != channels:
        raise NetworkError(
            f"{what} {values.tolist()} has {len(values)} values; the input has {channels} channels"
        )
    if not bool(values.isfinite().all()):
        raise NetworkError(f"{what} {values.tolist()} must be finite")
    return values.reshape(1, channels, 1, 1).clone()
