"""Which units are meant."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxygrad.errors import UnitOutOfRange
from proxygrad.protocol.requests import UnitSelection
from proxygrad.spec import LayerInfo
from workers.batches.units import from_json, select, to_json

LAYER = LayerInfo(name="conv", kind="feature_map", type="Conv2d", shape=(8, 4, 4), units=8)
SELECTION: TypeAdapter[Any] = TypeAdapter(UnitSelection)


@pytest.mark.parametrize(
    ("wanted", "units"),
    [
        ("all", range(8)),
        ({}, range(8)),
        ({"start": 3}, range(3, 8)),
        ({"start": 1, "stop": 6, "step": 2}, range(1, 6, 2)),
        ({"start": 1, "stop": 7, "step": 2}, range(1, 6, 2)),
        ([0, 1, 2], range(3)),
        ([5], range(5, 6)),
        ([2, 5], range(2, 6, 3)),
        ([5, 2, 7], (5, 2, 7)),
        ([3, 2, 1], (3, 2, 1)),
    ],
)
def test_what_is_meant_is_the_same_however_it_is_said(wanted: Any, units: Any) -> None:
    found = select(SELECTION.validate_python(wanted), LAYER)
    assert found == units
    assert from_json(to_json(found)) == units


@pytest.mark.parametrize("wanted", [[0, 8], {"start": 8}, {"stop": 9}])
def test_a_unit_that_the_layer_has_not_is_refused(wanted: Any) -> None:
    with pytest.raises(UnitOutOfRange, match="unit 8 is out of range: layer 'conv' has units 0 to 7"):
        select(SELECTION.validate_python(wanted), LAYER)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("some", "should be 'all', a list of units"),
        (7, "should be 'all', a list of units, or a range"),
        ([], "at least 1 item"),
        ([1, 2, 1], "unit 1 is listed twice"),
        ([-1], "greater than or equal to 0"),
        ([2**40], "less than"),
        ({"start": 4, "stop": 4}, "the range is empty"),
        ({"stop": 3, "step": 0}, "greater than or equal to 1"),
        ({"end": 3}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_no_choice_of_units_is_refused(wanted: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SELECTION.validate_python(wanted)
