"""Parts of the method that a caller brings: a parameterization, an update rule, a transform, a magnitude."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from proxygrad.engine.lane import MethodOverrides
from proxygrad.errors import InvalidRequest, ProxyGradError
from proxygrad.maximization.arguments import check_magnitude
from proxygrad.optim.update_rules import UpdateRule
from proxygrad.parameterizations import Maco, Parameterization, Shape
from proxygrad.spec.settings import ParameterizationName, UpdateName
from proxygrad.transforms import Transform

#: A name, a parameterization for images of one shape, or a class or function that makes one of
#: ``(shape, device)``.
ParameterizationLike = (
    ParameterizationName | Parameterization | Callable[[Shape, torch.device], Parameterization]
)
UpdateLike = UpdateName | UpdateRule


@dataclass(frozen=True, eq=False)
class OwnParts:
    """Each None where the settings name it. ``magnitude`` is for parameterization "maco"."""

    parameterization: Any = None
    update: Any = None
    transform: Transform | None = None
    magnitude: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether the settings name every part."""
        parts = (self.parameterization, self.update, self.transform, self.magnitude)
        return all(part is None for part in parts)

    def overrides(self, shape: Shape, name: ParameterizationName, device: torch.device) -> MethodOverrides:
        """For images of ``shape``; ``name`` is the parameterization of the settings.

        Raises `InvalidRequest` for a part that is not what it should be.
        """
        if self.update is not None:
            check_update(self.update)
        if self.transform is not None:
            check_transform(self.transform, shape, device)
        if self.magnitude is not None:
            check_magnitude(self.magnitude, shape, name)
            maco = Maco(shape, device, self.magnitude.detach().cpu().clone())
            return MethodOverrides(maco, self.update, self.transform)
        return MethodOverrides(self._parameterization(shape, device), self.update, self.transform)

    def _parameterization(self, shape: Shape, device: torch.device) -> Parameterization | None:
        given = self.parameterization
        if given is None:
            return None
        ready = not isinstance(given, type) and hasattr(given, "decode")
        if not ready and not callable(given):
            raise InvalidRequest(
                f"parameterization {given!r} is of type {type(given).__name__}; valid: 'pixels', 'fourier', "
                "'maco', a proxygrad Parameterization, or a class or function (shape, device) that makes one"
            )
        own: Parameterization = given if ready else _tried("parameterization", lambda: given(shape, device))
        check_parameterization(own, shape, device)
        return own


def split_parts(
    parameterization: ParameterizationLike | None, update: UpdateLike | None
) -> tuple[dict[str, str], OwnParts]:
    """Those that are given by name, for the settings, and those that are brought."""
    named = {
        name: given
        for name, given in (("parameterization", parameterization), ("update", update))
        if isinstance(given, str)
    }
    own = OwnParts(
        None if isinstance(parameterization, str) else parameterization,
        None if isinstance(update, str) else update,
    )
    return dict[str, str](named), own


def check_parameterization(own: Parameterization, shape: Shape, device: torch.device) -> None:
    """It has the four methods, and its start decodes to an image ``(1, C, H, W)`` in [0, 1]."""
    missing = [name for name in ("start", "encode", "decode", "project") if not hasattr(own, name)]
    if missing:
        raise InvalidRequest(
            f"parameterization {type(own).__name__} has no method {' and no '.join(missing)}"
        )
    with torch.no_grad():
        start = _tried("parameterization", lambda: own.start(torch.Generator().manual_seed(0)))
        images = _tried("parameterization", lambda: own.decode(start.to(device).unsqueeze(0)))
    _check_images(f"parameterization {type(own).__name__} decodes to", images, shape)
    low, high = float(images.min()), float(images.max())
    if not 0 <= low <= high <= 1:
        raise InvalidRequest(
            f"parameterization {type(own).__name__} decodes to values from {low:g} to {high:g}; valid: 0 to 1"
        )


def check_update(own: Any) -> None:
    """It is an instance with `state_names` and `step`."""
    if isinstance(own, type) or not (hasattr(own, "step") and hasattr(own, "state_names")):
        raise InvalidRequest(
            f"update {own!r} is no update rule; valid: 'normalized', 'sgd', 'adam', or an object with "
            "state_names and step(params, gradient, state, context)"
        )


def check_transform(own: Any, shape: Shape, device: torch.device) -> None:
    """It gives a view of the same shape when it is called with an image and a generator."""
    if not callable(own):
        raise InvalidRequest(f"transform {own!r} is no function; valid: transform(image, generator)")
    gray = torch.full((1, *shape), 0.5, dtype=torch.float32, device=device)
    view = _tried("transform", lambda: own(gray, torch.Generator().manual_seed(0)))
    _check_images("transform returns", view, shape)


def _check_images(what: str, images: Any, shape: Shape) -> None:
    if not isinstance(images, Tensor) or images.shape != (1, *shape):
        found = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise InvalidRequest(f"{what} {found}; valid: {(1, *shape)}")


def _tried(what: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ProxyGradError:
        raise
    except Exception as error:
        raise InvalidRequest(f"{what} fails on the first image: {type(error).__name__}: {error}") from error
