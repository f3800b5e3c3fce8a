"""The keywords are the fields of a request, by name, type and need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Required, get_args, get_origin, get_type_hints

import pytest

from proxygrad.protocol.requests import VisualizationRequest
from service.client.questions import Question, TemplateFields


def kept(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Required else hint


@pytest.mark.parametrize("name", VisualizationRequest.model_fields)
def test_each_field_of_a_request_is_a_keyword_of_its_type(name: str) -> None:
    hints = get_type_hints(Question, include_extras=True)
    assert name in hints
    field = VisualizationRequest.model_fields[name]
    assert (get_origin(hints[name]) is Required) is field.is_required()
    if name != "position":
        assert kept(hints[name]) == field.annotation
    else:  # a list will do for a tuple
        assert kept(hints[name]) == Sequence[int] | None


def test_no_keyword_is_no_field() -> None:
    assert set(get_type_hints(Question)) == set(VisualizationRequest.model_fields)
    assert set(get_type_hints(TemplateFields)) == set(VisualizationRequest.model_fields) - {"unit"}
