"""Golden ids: the id of a request does not change by accident.

Links, the store and Redis name a result by its id, a hash over the JSON of the completed request, the
model's digest (weights, builder, normalization) and `ENGINE_VERSION`. A renamed field or a moved builder
changes every id. Where that is intended, update the ids here and in the README, and the changelog.
"""

from __future__ import annotations

from typing import Any

import pytest

from proxygrad.models import Catalog
from proxygrad.protocol.requests import BatchRequest
from proxygrad.spec import ModelInfo, Spec
from workers.batches.repository import ResolvedBatch

DIGEST = "9de742fa86c0009b8c8aa64a3ad09e82b6b84faec89e005ce6663d76a6a1a64e"

#: By id, what is sent beside the model.
REQUESTS: dict[str, dict[str, Any]] = {
    "350c08fb1cb018edda49acd9e83ed40e": {"layer": "layer3", "unit": 7},  # the README's
    "c8fa99b19c8615ee53353234e9ea243b": {"layer": "fc", "unit": 3},
    "50bfefec460f9bed7d46eefef9847bd7": {"layer": "fc", "unit": 3, "objective": "neuron", "seed": 2**63 - 1},
    "e3ec89f6728400f4a60a79e6a496102b": {"layer": "layer3", "unit": 7, "preset": "max"},
    "6293a8efb26e9d2cc33471d9f9f33244": {
        "layer": "layer1",
        "unit": 0,
        "objective": "neuron",
        "position": [2, 13],
    },
    "94526fa0607e877db52c6e49770a253b": {"layer": "layer3", "unit": 7, "preset": "natural", "size_px": 48},
    "9fb91a3678eb6f45716b894e5ce967b5": {"layer": "layer3", "unit": 7, "preset": "fast", "steps": 20},
    "59732d08618614b608f8d7c27afd239c": {
        "layer": "layer2.relu1",
        "unit": 31,
        "images": 4,
        "diversity": 0.5,
        "compare": True,
    },
    "d3f41310401c34436edb49ac62a4b653": {
        "layer": "layer2",
        "unit": 5,
        "parameterization": "maco",
        "update": "adam",
        "step_size": 0.01,
    },
    "66d027964161bebe3b6add9462b2ba8a": {
        "layer": "layer2",
        "unit": 5,
        "slope": 0.1,
        "slope_end": 0.0,
        "spread_max_pool": 0.5,
        "gaf": "atan",
    },
    "7abdf54947410b3b815600a37fecfd90": {
        "layer": "conv1",
        "unit": 15,
        "preset": "max",
        "proxy": "network",
        "blur_px": 1.5,
        "start_noise": 0.0,
    },
}

BATCH = {"layer": "layer3", "units": {"start": 0, "stop": 64, "step": 2}, "preset": "fast"}


@pytest.fixture(scope="module")
def digits() -> ModelInfo:
    return Catalog.from_file().load("digits").info


def test_the_bundled_model_keeps_its_digest(digits: ModelInfo) -> None:
    assert digits.digest == DIGEST


@pytest.mark.parametrize(("identity", "fields"), REQUESTS.items())
def test_a_request_keeps_its_id(digits: ModelInfo, identity: str, fields: dict[str, Any]) -> None:
    assert Spec(model="digits", **fields).identity(digits) == identity


@pytest.mark.parametrize(
    ("caller", "identity"),
    [("anonymous", "5ef87a4e0b061133866512369d0d79c5"), ("k1", "47ebeba1d6d9689d9c703483e01c53c5")],
)
def test_a_batch_keeps_its_id(digits: ModelInfo, caller: str, identity: str) -> None:
    request = BatchRequest.model_validate({"model": "digits", **BATCH})
    assert ResolvedBatch.of(request, digits).identity(caller) == identity
