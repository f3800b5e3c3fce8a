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
    "2e051d4da90c5f79ee4beb31b1a0a079": {"layer": "layer3", "unit": 7},  # the README's
    "142636012b6db99bcf9634c9b4ef1e6b": {"layer": "fc", "unit": 3},
    "da443b2024a05e54f1dbabdf839af6c6": {"layer": "fc", "unit": 3, "objective": "neuron", "seed": 2**63 - 1},
    "24a3a05f5c320b8e50417caedfe1ec81": {"layer": "layer3", "unit": 7, "preset": "max"},
    "3ed40486763c885e477f6ceb57c41edb": {
        "layer": "layer1",
        "unit": 0,
        "objective": "neuron",
        "position": [2, 13],
    },
    "79a184baa3ab139cec0ad9c4d8bd3c22": {"layer": "layer3", "unit": 7, "preset": "natural", "size_px": 48},
    "29893f36b5cb761a52cd8622d197e774": {"layer": "layer3", "unit": 7, "preset": "fast", "steps": 20},
    "92785479ff5218c7a48cc92a203a54fe": {
        "layer": "layer2.relu1",
        "unit": 31,
        "images": 4,
        "diversity": 0.5,
        "compare": True,
    },
    "3c17841aa27e666f12fb761916ffae16": {
        "layer": "layer2",
        "unit": 5,
        "parameterization": "maco",
        "update": "adam",
        "step_size": 0.01,
    },
    "02adc671f4270267f40711a81c280648": {
        "layer": "layer2",
        "unit": 5,
        "slope": 0.1,
        "slope_end": 0.0,
        "spread_max_pool": 0.5,
        "gaf": "atan",
    },
    "755224427db74638d8af427bda53e2ad": {
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
    [("anonymous", "2d4c7e73c5fd2e06309241ab5229d1d4"), ("k1", "630f7746cb831760bdbd7a82a7e98795")],
)
def test_a_batch_keeps_its_id(digits: ModelInfo, caller: str, identity: str) -> None:
    request = BatchRequest.model_validate({"model": "digits", **BATCH})
    assert ResolvedBatch.of(request, digits).identity(caller) == identity
