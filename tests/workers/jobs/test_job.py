"""Questions as text and back."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tests.support.model_on_paper import MODEL, question
from workers.jobs import specs


def test_what_was_written_is_read_as_it_was() -> None:
    spec = question(3).resolve(MODEL)
    text = specs.to_text(spec)
    assert specs.from_text(text) is spec
    again = specs.from_text(text + " ")
    assert again == spec
    assert again.completed() == spec.completed()


def test_what_a_newer_version_says_more_is_left_out() -> None:
    text = json.dumps({**json.loads(specs.to_text(question(4))), "color": "blue"})
    assert specs.from_text(text) == question(4)


def test_what_is_no_question_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ValidationError):
            specs.from_text("{}")
