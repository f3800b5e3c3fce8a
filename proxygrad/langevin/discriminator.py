"""The discriminator: a small network that tells real images from generated ones.

Langevin dynamics activation maximization (Jiang, Chan, Zhang, Canny 2018, arXiv 1812.04604) adds the gradient
of its log-probability of "real" to the gradient of the unit, as a GAN's generator gets it (Goodfellow et al.
2014, arXiv 1406.2661). `proxygrad.training.discriminator` trains one on the operator's images.

The authors' for MNIST: convolution 5×5 of 32 channels, pooling by 2, ReLU, convolution 5×5 of 64, pooling by
2, ReLU, dense of 1024, dropout 0.5, dense of 2. Here the last is one logit: the softmax of two depends on
their difference alone. Larger images get further stages, so that the dense layer sees a map of at most 8×8.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, cast

import torch
from pydantic import Field, JsonValue, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.errors import SizeUnsupported, WeightsError
from proxygrad.spec.base import Frozen

#: The last map of the authors' network for MNIST is 7×7; the power of two above it suits 32 and 224 px too.
_LARGEST_MAP_PX = 8
#: Two stages leave one pixel of them.
_SMALLEST_PX = 4
_KERNEL_PX = 5
_KEY = "proxygrad.discriminator"

_Count = Annotated[int, Field(ge=1, le=2**16)]


class DiscriminatorArchitecture(Frozen):
    """What a `Discriminator` is built from. The defaults are the authors' for MNIST, but for ``input_shape``.

    ``input_shape``: ``(C, H, W)`` of the images. ``channels``: of each stage, which halves height and width.
    ``hidden``: width of the dense layer before the logit. ``dropout``: share of its values that training sets
    to zero.
    """

    input_shape: tuple[_Count, _Count, _Count]
    channels: tuple[_Count, ...] = Field(default=(32, 64), min_length=1, max_length=16)
    hidden: _Count = 1024
    dropout: float = Field(default=0.5, ge=0, lt=1)

    @classmethod
    def suited_to(cls, input_shape: tuple[int, int, int], width: int = 32, hidden: int = 1024) -> Self:
        """Two stages of ``width`` and 2 ``width`` channels, and more of the latter for images above 32 px.

        Raises `SizeUnsupported` for images below 4 px.
        """
        shortest, longest = min(input_shape[1:]), max(input_shape[1:])
        if shortest < _SMALLEST_PX:
            raise SizeUnsupported(
                f"a discriminator needs images of {_SMALLEST_PX} px or more, not {_shown(input_shape)}"
            )
        stages = 2
        while longest >> stages > _LARGEST_MAP_PX and shortest >> stages > 1:
            stages += 1
        return cls(input_shape=input_shape, channels=(width, *[2 * width] * (stages - 1)), hidden=hidden)


class Discriminator(nn.Module):
    """Images ``(B, C, H, W)`` in [0, 1] → the log-odds ``(B,)`` that each is real: log D - log (1 - D).

    ``architecture``: see `DiscriminatorArchitecture.suited_to`. ``training``: how it was trained, as JSON;
    it travels in the file. New weights come from torch's global generator.

    Evaluation mode is the caller's choice, as with any module; `load` returns it in evaluation mode.
    """

    def __init__(
        self, architecture: DiscriminatorArchitecture, training: Mapping[str, JsonValue] | None = None
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.trained_with: dict[str, JsonValue] = dict(training or {})
        inputs, height, width = architecture.input_shape
        count = len(architecture.channels)
        if min(height, width) < 2**count:
            raise SizeUnsupported(
                f"images of {_shown(architecture.input_shape)} are too small for {count} stages, each of "
                "which halves them"
            )
        stages: list[nn.Module] = []
        for outputs in architecture.channels:
            convolution = nn.Conv2d(inputs, outputs, _KERNEL_PX, padding=_KERNEL_PX // 2)
            stages += [convolution, nn.MaxPool2d(2), nn.ReLU()]
            inputs, height, width = outputs, height // 2, width // 2
        self.stages = nn.Sequential(*stages)
        self.hidden = nn.Linear(inputs * height * width, architecture.hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(architecture.dropout)
        self.logit = nn.Linear(architecture.hidden, 1)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B,)``. Raises `SizeUnsupported` for images of another shape."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.input_shape:
            raise SizeUnsupported(
                f"this discriminator takes images of {_shown(self.input_shape)}, "
                f"not of {_shown(images.shape[1:] if images.ndim == 4 else images.shape)}"
            )
        maps = self.stages(2 * images - 1)  # (B, channels, H / 2^stages, W / 2^stages)
        features = self.dropout(self.relu(self.hidden(maps.flatten(1))))  # (B, hidden)
        logits: Tensor = self.logit(features).squeeze(1)  # (B,)
        return logits

    def log_real(self, images: Tensor) -> Tensor:
        """log D, the log-probability that each image is real: ``(B, C, H, W)`` → ``(B,)``, at most 0."""
        return functional.logsigmoid(self(images))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of its images."""
        return self.architecture.input_shape

    @property
    def digest(self) -> str:
        """SHA-256 of architecture and weights, in 64 hex digits."""
        digest = hashlib.sha256(self.architecture.model_dump_json().encode())
        for key, value in sorted(self.state_dict().items()):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def frozen(self, device: str | torch.device = "cpu") -> Self:
        """A copy of its own in evaluation mode on ``device``, whose weights take no gradient."""
        copy = type(self)(self.architecture, self.trained_with)
        copy.load_state_dict(self.state_dict())
        return copy.to(device).eval().requires_grad_(False)

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, with architecture and training as metadata.

        The same weights give the same bytes. Raises `WeightsError` when ``path`` cannot be written.
        """
        from safetensors.torch import save_file

        about = {"architecture": self.architecture.model_dump(mode="json"), "training": self.trained_with}
        state = {key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()}
        try:  # one entry, since safetensors writes several in any order
            save_file(state, path, metadata={_KEY: json.dumps(about, sort_keys=True)})
        except Exception as error:  # safetensors has one error of its own for whatever the system refuses
            raise WeightsError(f"discriminator cannot be written to {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, in evaluation mode. Raises `WeightsError` naming the file."""
        about, state = _read(Path(path))
        try:
            architecture = DiscriminatorArchitecture.model_validate(about["architecture"])
            discriminator = cls(architecture, about["training"])
            discriminator.load_state_dict(state)
        except (KeyError, TypeError, ValidationError, RuntimeError, SizeUnsupported) as error:
            reason = str(error).strip().partition("\n")[0]
            raise WeightsError(f"discriminator file {path} does not fit together: {reason}") from error
        return discriminator.eval()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and tensors of a file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"discriminator file {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"discriminator file {path} cannot be read as safetensors: {error}") from error
    try:
        return cast(dict[str, Any], json.loads(metadata[_KEY])), state
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{path} is no discriminator: it lacks the metadata that `proxygrad train-discriminator` writes"
        ) from error


def _shown(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, shape))
