"""The answer to a request for an attribution: result, heat map, overlay and contributions, as stored.

Command line and workers share it; `proxygrad.attribution.attribute` computes.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from proxygrad.attribution.attribute import Settings, begin
from proxygrad.attribution.heatmap import clipped_scale, heat_map, overlay
from proxygrad.attribution.result import Attribution, Missed
from proxygrad.engine.capacity import DEFAULT_MAX_LANES
from proxygrad.engine.evaluation import TOP_CLASSES, class_probabilities
from proxygrad.engine.request import requested_objective
from proxygrad.errors import InvalidRequest
from proxygrad.images import encode_png
from proxygrad.networks.network import Network
from proxygrad.png import annotate_png
from proxygrad.spec.attribution import (
    AttributionResult,
    AttributionSpec,
    LogitValue,
    MissedShare,
    SummationDelta,
    finite_or_none,
)

HEATMAP, OVERLAY, CONTRIBUTIONS = "heatmap.png", "overlay.png", "contributions.npy"
#: Operations that a result lists.
_LISTED = 5
#: Pixels of a turn on a CPU: one picture of 224 px, which gains nothing in a batch, or several small ones
#: (docs/measurements/attribution.md, "Turns").
TURN_PX = 224 * 224


@dataclass(frozen=True)
class Explanation:
    """A result, and the files beside it by name."""

    result: AttributionResult
    files: Mapping[str, bytes]


def pixels_of(npy: bytes) -> Tensor:
    """What the store has of a job, in [0, 1], float32: the picture ``(C, H, W)``, or the references that were
    sent ``(k, C, H, W)``. Raises `ValueError`."""
    pixels = torch.from_numpy(np.load(io.BytesIO(npy), allow_pickle=False))
    return pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels.to(torch.float32)


class SlicedExplanation:
    """An explanation of which ``step`` of ``steps`` are done, so that others may have a turn in between.

    ``image``: ``(C, H, W)`` in [0, 1]. ``uploaded``: the references that were sent, ``(k, C, H, W)``.
    ``labels``: further texts of the PNGs. Every method raises what `attribute` raises.
    """

    def __init__(
        self,
        network: Network,
        image: Tensor,
        spec: AttributionSpec,
        uploaded: Tensor | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._network, self._image, self._spec, self._labels = network, image, spec, labels or {}
        self._ran_s = 0.0
        named = {} if uploaded is None else {"uploaded": uploaded.unsqueeze(0)}  # (1, k, C, H, W)
        settings = Settings(
            reference=[named.get(str(each), each) for each in spec.listed],
            rule=spec.rule,
            at=spec.at,
            method=spec.method,
            seed=spec.seed,
            references=spec.references if "shuffled" in spec.listed else None,
            points=spec.points,
            max_rows=_rows(network.device, image),
            normalize_logits=spec.normalize_logits,
            each=False,
        )
        with self._timed():
            self._attribution = begin(network, image, requested_objective(spec.unit_spec), settings)

    @property
    def step(self) -> int:
        """How many are done."""
        return self._attribution.step

    @property
    def steps(self) -> int:
        """How many there are: as many as the request says."""
        return self._attribution.steps

    def advance(self) -> None:
        """Some more steps."""
        with self._timed():
            self._attribution.advance()

    def finish(self) -> Explanation:
        """What came of them."""
        with self._timed():
            found = self._attribution.result()
            contributions = found.contributions[0].detach().cpu().float()
            logits = _logits(self._network, self._image)
        if contributions.ndim != 3:
            at, shape = self._spec.at, tuple(contributions.shape)
            raise InvalidRequest(f"at {at!r} has shape {shape}; valid: a feature map")
        if not bool(contributions.isfinite().all()):
            raise InvalidRequest("the contributions are not finite: the network overflows on this picture")
        result = _result(self._network, self._spec, found, contributions, logits, self._ran_s)
        return Explanation(result, _files(contributions, self._image, result, self._labels))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._ran_s += time.perf_counter() - began_s


def explain(
    network: Network, image: Tensor, spec: AttributionSpec, uploaded: Tensor | None = None
) -> Explanation:
    """Attribute what ``spec`` asks of ``image`` ``(C, H, W)`` in [0, 1], at once. As `SlicedExplanation`."""
    sliced = SlicedExplanation(network, image, spec, uploaded)
    while sliced.step < sliced.steps:
        sliced.advance()
    return sliced.finish()


def _rows(device: torch.device, image: Tensor) -> int:
    """How many rows a turn computes: on a CPU as many as have the pixels of `TURN_PX`, on others a batch."""
    if device.type != "cpu":
        return DEFAULT_MAX_LANES
    return max(1, min(DEFAULT_MAX_LANES, TURN_PX // (image.shape[1] * image.shape[2])))


def _result(
    network: Network,
    spec: AttributionSpec,
    found: Attribution,
    contributions: Tensor,
    logits: Tensor | None,
    ran_s: float,
) -> AttributionResult:
    return AttributionResult(
        spec=spec,
        value=float(found.value[0]),
        reference_value=float(found.reference_value[0]),
        delta=SummationDelta(
            absolute=float(found.delta.absolute[0]),
            relative=finite_or_none(float(found.delta.relative[0])),
            operations=_shares(found.delta.operations),
        ),
        unruled=_shares(found.unruled),
        shape=(contributions.shape[0], contributions.shape[1], contributions.shape[2]),
        scale=clipped_scale(contributions),
        logits=() if logits is None else _highest(logits, network.classes),
        class_probabilities=None if logits is None else class_probabilities(logits, network),
        notes=network.info.notes,
        digest=network.info.digest,
        engine_version=network.info.engine_version,
        device=str(network.device),
        dtype="float32",
        ran_s=ran_s,
    )


def _files(
    contributions: Tensor, image: Tensor, result: AttributionResult, labels: Mapping[str, str]
) -> dict[str, bytes]:
    text = {**labels, "spec": result.spec.model_dump_json(), "scale": repr(result.scale)}
    array = io.BytesIO()
    np.save(array, contributions.numpy(), allow_pickle=False)
    return {
        HEATMAP: annotate_png(encode_png(heat_map(contributions, result.scale)), text),
        OVERLAY: annotate_png(encode_png(overlay(contributions, image, result.scale)), text),
        CONTRIBUTIONS: array.getvalue(),
    }


def _shares(missed: Sequence[Missed]) -> tuple[MissedShare, ...]:
    return tuple(
        MissedShare(
            operation=each.operation,
            layer=each.layer,
            missed=each.missed,
            share=finite_or_none(each.share),
        )
        for each in missed[:_LISTED]
    )


def _logits(network: Network, image: Tensor) -> Tensor | None:
    """The logits ``(N,)``; None where the network has none, or takes no picture of that size so far."""
    layer = next((each.name for each in network.info.layers if each.kind == "logits"), None)
    if layer is None:
        return None
    try:
        with torch.no_grad():
            return network.activations(image.unsqueeze(0).to(network.device), layer)[0].float().cpu()
    except torch.AcceleratorError:
        raise
    except Exception:
        return None


def _highest(logits: Tensor, classes: tuple[str, ...] | None) -> tuple[LogitValue, ...]:
    top = logits.topk(min(TOP_CLASSES, len(logits)))
    return tuple(
        LogitValue(index=index, name=classes[index] if classes and index < len(classes) else None, value=each)
        for each, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    )
