"""Objectives of one's own: a function of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest, ProxyGradError
from proxygrad.objectives.base import Activations, Objective


@dataclass(frozen=True)
class FunctionObjective(Objective):
    """What ``function`` computes from the activations of the layers in ``reads``.

    ``function``: ``{layer: (B, …)}`` → ``(B,)``, one number for each image, differentiable. It is called with
    one image at a time, so a scalar ``()`` will do.
    """

    function: Callable[[Activations], Tensor]
    reads: tuple[str, ...]

    @classmethod
    def of(
        cls, function: Callable[[Activations], Tensor], read: Callable[[str], Tensor]
    ) -> FunctionObjective:
        """Find the layers by a trial: ``read(layer)`` returns the activation ``(1, …)`` of one image.

        Raises `InvalidRequest` when the function fails, reads no layer, or does not return one number.
        """
        recorder = _Recorder(read)
        try:
            with torch.no_grad():
                value = function(recorder)
        except ProxyGradError:
            raise
        except Exception as error:
            raise InvalidRequest(
                f"objective {_name(function)} fails on the activations of one image: "
                f"{type(error).__name__}: {error}"
            ) from error
        objective = cls(function, tuple(recorder.seen))
        if not objective.reads:
            raise InvalidRequest(
                f"objective {_name(function)} reads no layer; valid: a function of activations, as "
                "lambda activations: activations['features.7'][:, 20].mean((1, 2))"
            )
        objective._one_each(value, 1)
        return objective

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the function reads."""
        return self.reads

    def __call__(self, activations: Activations) -> Tensor:
        """``{layer: (B, …)}`` → ``(B,)``."""
        return self._one_each(self.function(activations), len(activations[self.reads[0]]))

    def _one_each(self, value: Any, images: int) -> Tensor:
        if isinstance(value, Tensor) and images == 1 and value.shape in ((), (1,)):
            return value.reshape(1)
        if isinstance(value, Tensor) and value.shape == (images,):
            return value
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InvalidRequest(
            f"objective {_name(self.function)} returns {found} for {images} image(s); valid: a tensor (B,), "
            "with one number for each image, such as a mean over all other dimensions"
        )


class _Recorder(Mapping[str, Tensor]):
    """Activations that are read when they are asked for; ``seen`` has their layers."""

    def __init__(self, read: Callable[[str], Tensor]) -> None:
        self._read = read
        self.seen: dict[str, Tensor] = {}

    def __getitem__(self, layer: str) -> Tensor:
        if layer not in self.seen:
            self.seen[layer] = self._read(layer)
        return self.seen[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.seen)

    def __len__(self) -> int:
        return len(self.seen)


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", type(function).__name__)
