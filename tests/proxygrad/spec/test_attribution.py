"""Requests for attributions: they survive their own JSON, and their ids tell apart what differs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from proxygrad.errors import InvalidRequest
from proxygrad.protocol.attributions import AttributionRequest
from proxygrad.spec.attribution import (
    MAX_LISTED,
    MAX_POINTS,
    MAX_REFERENCES,
    AttributionSpec,
    InputImage,
    ReferenceImages,
    StoredAttributionSpec,
)
from tests.support.model_on_paper import MODEL

LAYER = next(layer for layer in MODEL.layers if layer.kind == "feature_map").name
SENT = ReferenceImages(sha256="2" * 64, number=3)
STORED: TypeAdapter[AttributionSpec] = TypeAdapter(StoredAttributionSpec)


def pictures() -> st.SearchStrategy[InputImage]:
    sides = st.integers(1, 1024)
    digests = st.text("0123456789abcdef", min_size=64, max_size=64)
    return st.builds(InputImage, sha256=digests, channels=st.just(3), height_px=sides, width_px=sides)


def references() -> st.SearchStrategy[str | float]:
    return st.sampled_from(["zeros", "mean", "blurred", "shuffled", "uploaded"]) | st.floats(0, 1)


def choices() -> st.SearchStrategy[dict[str, Any]]:
    """Fields beside the unit, as each method takes them."""
    common: dict[str, Any] = {
        "reference": references() | st.lists(references(), min_size=1, max_size=MAX_LISTED),
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
    listed = fields.get("reference", "zeros")
    if "uploaded" in (listed if isinstance(listed, list) else [listed]):
        fields = {"reference_images": SENT, **fields}
    return AttributionSpec(model=MODEL.name, layer=LAYER, unit=0, image=image, **fields)


@settings(max_examples=30, deadline=None)
@given(choices(), pictures())
def test_a_request_survives_its_own_json(fields: dict[str, Any], image: InputImage) -> None:
    spec = asked(fields, image)
    text = spec.model_dump_json()
    assert AttributionSpec.model_validate_json(text) == spec
    assert STORED.validate_python(json.loads(text) | {"of_a_newer_version": 1}) == spec
    request = AttributionRequest.model_validate(
        spec.model_dump(mode="json", exclude={"image", "reference_images"})
    )
    assert request.of(image, spec.reference_images).spec == spec


PICTURE = InputImage(sha256="0" * 64, channels=3, height_px=8, width_px=8)


def test_the_id_tells_apart_whatever_changes_the_answer() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"rule": "rescale"},
        {"reference": "mean"},
        {"reference": 0.5},
        {"reference": [0.5, "zeros"]},
        {"reference": "shuffled"},
        {"reference": "shuffled", "references": 3},
        {"reference": "shuffled", "seed": 3},
        {"reference": "uploaded"},
        {"reference": "uploaded", "reference_images": SENT.model_copy(update={"sha256": "3" * 64})},
        {"reference": ["uploaded", "zeros"]},
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
    assert asked({"reference": ["mean"]}, PICTURE).identity(MODEL) in ids
    assert asked({"objective": "channel"}, PICTURE).identity(MODEL) == asked({}, PICTURE).identity(MODEL)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_gray_is_from_0_to_1(value: float) -> None:
    with pytest.raises(ValueError, match="reference"):
        asked({"reference": value}, PICTURE)


@pytest.mark.parametrize(
    ("fields", "steps", "passes"),
    [
        ({}, 1, 4),
        ({"reference": ["zeros", 1.0]}, 2, 8),
        ({"reference": "shuffled"}, 20, 80),
        ({"reference": ["uploaded", "mean", "shuffled"], "references": 5}, 9, 36),
        ({"method": "saliency"}, 1, 1),
        ({"method": "integrated_gradients"}, 50, 50),
        ({"method": "integrated_gradients", "points": 1000, "reference": ["zeros", 1]}, 2000, 2000),
    ],
)
def test_steps_and_cost_count_references_and_points(
    fields: dict[str, Any], steps: int, passes: float
) -> None:
    spec = asked(fields, PICTURE)
    assert spec.steps == steps
    assert spec.cost(MODEL) == pytest.approx(passes * 8 * 8 / 1e6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"reference": "noise"},
            "unknown reference 'noise'; valid: zeros, mean, blurred, shuffled, uploaded, a",
        ),
        ({"reference": ["zeros", "noise"]}, "unknown reference 'noise'"),
        ({"reference": ["zeros", True]}, "unknown reference True"),
        ({"reference": [["zeros"]]}, r"unknown reference \['zeros'\]"),
        ({"reference": {"image": 1}}, "unknown reference"),
        ({"reference": "n" * 9000}, "unknown reference 'nnnnnnnnnnnn\\.\\.\\."),
        ({"reference": []}, "0 references in a list; valid: 1 to 16"),
        ({"reference": ["zeros"] * 17}, "17 references in a list; valid: 1 to 16"),
        ({"references": 3}, "references 3 applies to reference 'shuffled', not 'zeros'"),
        ({"seed": 3, "reference": [0.5, 0.25]}, "seed 3 applies to reference 'shuffled'"),
        ({"reference": "shuffled", "references": 101}, "references"),
        ({"reference_images": SENT}, "go with reference 'uploaded'"),
        ({"reference": "uploaded", "reference_images": None}, "go with reference 'uploaded'"),
    ],
)
def test_bad_references_are_one_error_each(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        asked(fields, PICTURE)
    assert caught.value.error_count() == 1  # type: ignore[attr-defined]


def test_references_are_bounded_in_all() -> None:
    asked({"reference": "shuffled", "references": MAX_REFERENCES}, PICTURE).checked(MODEL)
    with pytest.raises(InvalidRequest, match="103 references in all; valid: at most 100"):
        asked({"reference": ["shuffled", "uploaded"], "references": 100}, PICTURE).checked(MODEL)
