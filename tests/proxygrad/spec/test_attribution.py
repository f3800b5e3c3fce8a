"""Requests for attributions: they survive their own JSON, and their ids tell apart what differs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from proxygrad.protocol.attributions import AttributionRequest
from proxygrad.spec.attribution import MAX_POINTS, AttributionSpec, InputImage, StoredAttributionSpec
from tests.support.model_on_paper import MODEL

LAYER = next(layer for layer in MODEL.layers if layer.kind == "feature_map").name
STORED: TypeAdapter[AttributionSpec] = TypeAdapter(StoredAttributionSpec)


def pictures() -> st.SearchStrategy[InputImage]:
    sides = st.integers(1, 1024)
    digests = st.text("0123456789abcdef", min_size=64, max_size=64)
    return st.builds(InputImage, sha256=digests, channels=st.just(3), height_px=sides, width_px=sides)


def choices() -> st.SearchStrategy[dict[str, Any]]:
    """Fields beside the unit, as each method takes them."""
    common: dict[str, Any] = {
        "reference": st.sampled_from(["zeros", "mean", "blurred"]) | st.floats(0, 1),
        "normalize_logits": st.booleans(),
        "position": st.none() | st.just((0, 0)),
    }
    deeplift = {
        "method": st.just("deeplift"),
        "rule": st.sampled_from(["auto", "rescale", "revealcancel", "gradient"]),
        "at": st.none() | st.just(LAYER),
    }
    path = {"method": st.just("integrated_gradients"), "points": st.integers(1, MAX_POINTS)}
    other = {"method": st.sampled_from(["gradient_times_input", "guided_backprop", "saliency"])}
    return st.one_of(*(st.fixed_dictionaries(common | own) for own in (deeplift, path, other)))


def asked(fields: dict[str, Any], image: InputImage) -> AttributionSpec:
    return AttributionSpec(model=MODEL.name, layer=LAYER, unit=0, image=image, **fields)


@settings(max_examples=30, deadline=None)
@given(choices(), pictures())
def test_a_request_survives_its_own_json(fields: dict[str, Any], image: InputImage) -> None:
    spec = asked(fields, image)
    text = spec.model_dump_json()
    assert AttributionSpec.model_validate_json(text) == spec
    assert STORED.validate_python(json.loads(text) | {"of_a_newer_version": 1}) == spec
    request = AttributionRequest.model_validate(spec.model_dump(mode="json", exclude={"image"}))
    assert request.of(image).spec == spec


PICTURE = InputImage(sha256="0" * 64, channels=3, height_px=8, width_px=8)


def test_the_id_tells_apart_whatever_changes_the_answer() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"rule": "rescale"},
        {"reference": "mean"},
        {"reference": 0.5},
        {"method": "saliency"},
        {"method": "integrated_gradients"},
        {"method": "integrated_gradients", "points": 7},
        {"at": LAYER},
        {"normalize_logits": True},
    ]
    ids = {asked(fields, PICTURE).identity(MODEL) for fields in variants}
    assert len(ids) == len(variants)
    other = PICTURE.model_copy(update={"sha256": "1" * 64})
    assert asked({}, other).identity(MODEL) not in ids
    assert asked({"objective": "channel"}, PICTURE).identity(MODEL) == asked({}, PICTURE).identity(MODEL)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_gray_is_from_0_to_1(value: float) -> None:
    with pytest.raises(ValueError, match="reference"):
        asked({"reference": value}, PICTURE)
