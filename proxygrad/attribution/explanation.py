"""The answer to a request for an attribution: result, heat map, overlay and contributions, as stored.

Command line and workers share it; `proxygrad.attribution.attribute` computes.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.heatmap import heat_map, overlay, scale_of
from proxygrad.attribution.result import Missed
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


@dataclass(frozen=True)
class Explanation:
    """A result, and the files beside it by name."""

    result: AttributionResult
    files: Mapping[str, bytes]


def image_of(npy: bytes) -> Tensor:
    """The picture that the store has of a job, ``(C, H, W)`` in [0, 1], float32. Raises `ValueError`."""
    pixels = torch.from_numpy(np.load(io.BytesIO(npy), allow_pickle=False))
    return pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels.to(torch.float32)


def explain(
    network: Network, image: Tensor, spec: AttributionSpec, labels: Mapping[str, str] | None = None
) -> Explanation:
    """Attribute what ``spec`` asks of ``image`` ``(C, H, W)`` in [0, 1].

    ``labels``: further texts of the PNGs. Raises what `attribute` raises.
    """
    began_s = time.perf_counter()
    objective = requested_objective(spec.unit_spec)
    found = attribute(
        network,
        image,
        objective,
        reference=spec.reference,
        rule=spec.rule,
        at=spec.at,
        method=spec.method,
        points=spec.points,
        normalize_logits=spec.normalize_logits,
    )
    contributions = found.contributions[0].detach().cpu().float()
    if contributions.ndim != 3:
        raise InvalidRequest(f"at {spec.at!r} has shape {tuple(contributions.shape)}; valid: a feature map")
    if not bool(contributions.isfinite().all()):
        raise InvalidRequest("the contributions are not finite: the network overflows on this picture")
    logits = _logits(network, image)
    result = AttributionResult(
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
        scale=scale_of(contributions),
        logits=() if logits is None else _highest(logits, network.classes),
        class_probabilities=None if logits is None else class_probabilities(logits, network),
        notes=network.info.notes,
        digest=network.info.digest,
        engine_version=network.info.engine_version,
        device=str(network.device),
        dtype="float32",
        ran_s=time.perf_counter() - began_s,
    )
    return Explanation(result, _files(contributions, image, result, labels or {}))


def _files(
    contributions: Tensor, image: Tensor, result: AttributionResult, labels: Mapping[str, str]
) -> dict[str, bytes]:
    text = {**labels, "spec": result.spec.model_dump_json(), "scale": repr(result.scale)}
    array = io.BytesIO()
    np.save(array, contributions.numpy(), allow_pickle=False)
    return {
        HEATMAP: annotate_png(encode_png(heat_map(contributions)), text),
        OVERLAY: annotate_png(encode_png(overlay(contributions, image)), text),
        CONTRIBUTIONS: array.getvalue(),
    }


def _shares(missed: Sequence[Missed]) -> tuple[MissedShare, ...]:
    return tuple(
        MissedShare(operation=each.operation, layer=each.layer, missed=each.missed, share=each.share)
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
