"""Every error that this package raises on purpose, as one tree.

::

    ProxyGradError
    ├── InvalidRequest                the request is wrong; repeating it does not help
    │   ├── UnknownModel              no such model; carries near names
    │   ├── UnknownLayer              no such layer; carries near names
    │   ├── UnitOutOfRange            the layer has fewer units
    │   ├── PositionOutOfRange        the feature map is smaller
    │   ├── ObjectiveMismatch         this kind of layer has no such objective
    │   │   └── PositionMismatch      the objective, or the layer, has no positions
    │   ├── SizeUnsupported           the network cannot take an image of that size
    │   └── BadPicture                a picture that was sent cannot be read
    │       └── PictureTooLarge       it has more pixels than is allowed
    ├── ModelError                    a model cannot be made ready
    │   ├── BuilderError              its builder cannot be found, or failed
    │   ├── WeightsError              its weights file is missing, damaged, unsafe or of another architecture
    │   └── NetworkError              the module itself cannot be visualized
    ├── LaneError                     one image could not be made; its batch-mates go on
    │   ├── OutOfMemory               it does not fit on the device, not even alone
    │   └── ChainDiverged             a Langevin chain left what it can sample
    ├── RenderCanceled                the caller stopped it
    ├── DeadlineExceeded              its time was up before it had ended
    └── CheckpointMismatch            the checkpoint cannot be resumed from

Messages name the offending value and the valid choices. `code` is stable and travels to HTTP as it is.
No torch here: the gateway imports this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class ProxyGradError(Exception):
    """Base of all deliberate errors of this package."""

    code = "internal_error"


class InvalidRequest(ProxyGradError):
    """The request is wrong; repeating it does not help."""

    code = "bad_request"


def near(name: str, choices: Sequence[str], count: int = 5) -> list[str]:
    """The ``count`` choices that look most like ``name``, best first; may be empty.

    Only the first 500 characters of ``name`` count, the longest that a layer's name may be: the comparison
    takes time with the product of both lengths.
    """
    name = name[:500]
    folded = {choice.lower(): choice for choice in choices}
    inside = [choice for low, choice in folded.items() if name and name.lower() in low]
    close = [folded[low] for low in get_close_matches(name.lower(), folded, n=count, cutoff=0.5)]
    return list(dict.fromkeys(close + inside))[:count]


#: An unknown name is repeated in so many characters at most.
_SHOWN = 500


def _unknown(what: str, name: str, choices: Sequence[str]) -> tuple[str, list[str]]:
    suggestions = near(name, choices)
    shown = suggestions or list(choices)[:10]
    more = "" if suggestions or len(choices) <= 10 else f" and {len(choices) - 10} more"
    lead = "near names" if suggestions else "there are"
    listed = ", ".join(shown) + more if shown else "none"
    named = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    return f"unknown {what} {named!r}; {lead}: {listed}", shown


class UnknownModel(InvalidRequest):
    """No model of that name is served. ``choices`` holds near names, or all there are."""

    code = "unknown_model"

    def __init__(self, name: str, choices: Sequence[str]) -> None:
        message, self.choices = _unknown("model", name, choices)
        super().__init__(message)


class UnknownLayer(InvalidRequest):
    """The model has no layer of that name. ``choices`` holds near names, or the first few."""

    code = "unknown_layer"

    def __init__(self, name: str, choices: Sequence[str], model: str = "") -> None:
        of_model = f"layer of model {model!r}:" if model else "layer"
        message, self.choices = _unknown(of_model, name, choices)
        super().__init__(message)


class UnitOutOfRange(InvalidRequest):
    """The layer has ``units`` units, counted from 0."""

    code = "unit_out_of_range"

    def __init__(self, unit: int, units: int, layer: str) -> None:
        self.unit = unit
        self.valid_range = (0, units - 1)
        super().__init__(f"unit {unit} is out of range: layer {layer!r} has units 0 to {units - 1}")


class PositionOutOfRange(InvalidRequest):
    """The layer has no such position; ``grid`` is its height and width, or its number of tokens."""

    code = "position_out_of_range"

    def __init__(self, position: Sequence[int], grid: Sequence[int], layer: str) -> None:
        names = ("rows", "columns") if len(grid) == 2 else ("tokens",)
        valid = " and ".join(f"{name} 0 to {side - 1}" for name, side in zip(names, grid, strict=True))
        super().__init__(f"position {list(position)} is out of range: layer {layer!r} has {valid}")


class ObjectiveMismatch(InvalidRequest):
    """The layer's kind does not offer that objective; ``choices`` holds those that it does."""

    code = "objective_mismatch"

    def __init__(
        self, objective: str, layer: str, kind: str, choices: Sequence[str], message: str | None = None
    ) -> None:
        self.choices = list(choices)
        super().__init__(
            message
            or f"objective {objective!r} does not apply to layer {layer!r} (a {kind}); "
            f"valid: {', '.join(choices)}"
        )


class PositionMismatch(ObjectiveMismatch):
    """A position was given, and the objective takes none, or the layer has none.

    ``takers``: the objectives of the layer that take one.
    """

    def __init__(self, objective: str, layer: str, kind: str, takers: Sequence[str]) -> None:
        needed = " or ".join(map(repr, takers))
        wrong = f"position needs objective {needed}, not {objective!r}"
        none = f"position does not apply to layer {layer!r} (a {kind}), which has none"
        super().__init__(objective, layer, kind, (), wrong if takers else none)


class SizeUnsupported(InvalidRequest):
    """The network fails on an image of that size."""

    code = "size_unsupported"


class BadPicture(InvalidRequest):
    """A picture that was sent is damaged, of another format, or not what the network takes."""

    code = "invalid_image"


class PictureTooLarge(BadPicture):
    """The picture has more than ``limit`` pixels. Nothing of it was decoded."""

    code = "limit_exceeded"

    def __init__(self, width_px: int, height_px: int, limit: int) -> None:
        self.pixels, self.limit = width_px * height_px, limit
        super().__init__(f"the picture has {width_px} × {height_px} pixels; valid: at most {limit} in all")


class ModelError(ProxyGradError):
    """A model cannot be made ready."""

    code = "model_unavailable"


class BuilderError(ModelError):
    """The builder that the operator named cannot be found, or it failed."""


class WeightsError(ModelError):
    """A weights file is missing, damaged, unsafe, or belongs to another architecture."""


class NetworkError(ModelError):
    """The module itself cannot be visualized (not a floating-point module, non-finite weights, …)."""


class LaneError(ProxyGradError):
    """One image could not be made. Says at which step; the other lanes go on."""

    code = "lane_failed"


class RenderCanceled(ProxyGradError):
    """The caller stopped the lane before it had ended."""

    code = "canceled"


class OutOfMemory(LaneError):
    """One image, or a diversity group that must be stepped together, does not fit on the device."""

    code = "out_of_memory"


class ChainDiverged(LaneError):
    """A Langevin chain left what it can sample, at ``step``: its steps are too large for its gradient."""

    code = "chain_diverged"

    def __init__(self, step: int, reason: str, chain: str = "the chain") -> None:
        self.step, self.reason = step, reason
        super().__init__(f"{chain} diverged at step {step}: {reason}")


class DeadlineExceeded(ProxyGradError):
    """The lane's time was up after ``step`` of ``steps`` steps; ``limit_s`` counts from its submission."""

    code = "deadline_exceeded"

    def __init__(self, step: int, steps: int, limit_s: float) -> None:
        self.step, self.steps, self.limit_s = step, steps, limit_s
        reached = f"after step {step} of {steps}" if step else f"before the first of {steps} steps"
        super().__init__(f"the deadline, {limit_s:.3g} s from submission, passed {reached}")


class CheckpointMismatch(ProxyGradError):
    """The checkpoint is damaged, or of another request, other weights or another version of the engine."""

    code = "checkpoint_mismatch"
