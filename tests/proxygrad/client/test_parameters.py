"""The keywords are the fields of a request, by name, type and need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Required, get_args, get_origin, get_type_hints

import pytest

from proxygrad.client.parameters import (
    AttributionParameters,
    LangevinParameters,
    Reference,
    TemplateParameters,
    VisualizationParameters,
)
from proxygrad.protocol.attributions import AttributionRequest
from proxygrad.protocol.requests import VisualizationRequest
from proxygrad.spec.langevin import LangevinSettings


def kept(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Required else hint


@pytest.mark.parametrize("name", VisualizationRequest.model_fields)
def test_each_field_of_a_request_is_a_keyword_of_its_type(name: str) -> None:
    hints = get_type_hints(VisualizationParameters, include_extras=True)
    assert name in hints
    field = VisualizationRequest.model_fields[name]
    assert (get_origin(hints[name]) is Required) is field.is_required()
    others = {"position": Sequence[int] | None, "langevin": LangevinParameters | None}  # a list for a tuple
    assert kept(hints[name]) == others.get(name, field.annotation)


def test_the_settings_of_chains_are_keywords_too() -> None:
    hints = get_type_hints(LangevinParameters)
    assert hints == {name: field.annotation for name, field in LangevinSettings.model_fields.items()}


def test_each_field_of_an_attribution_is_a_keyword() -> None:
    hints = get_type_hints(AttributionParameters, include_extras=True)
    assert set(hints) == set(AttributionRequest.model_fields) - {"image"}
    others = {"position": Sequence[int] | None, "reference": Reference | Sequence[Reference]}
    for name, hint in hints.items():
        field = AttributionRequest.model_fields[name]
        assert (get_origin(hint) is Required) is field.is_required()
        assert kept(hint) == others.get(name, field.annotation), name


def test_no_keyword_is_no_field() -> None:
    assert set(get_type_hints(VisualizationParameters)) == set(VisualizationRequest.model_fields)
    assert set(get_type_hints(TemplateParameters)) == set(VisualizationRequest.model_fields) - {"unit"}
