"""Questions as text and back."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tests.support.model_on_paper import MODEL, question
from workers.jobs import job
from workers.jobs.kinds.visualization import VisualizationJob


def test_what_was_written_is_read_as_it_was() -> None:
    spec = question(3).resolve(MODEL)
    text = job.spec_to_json(spec, VisualizationJob)
    assert job.spec_from_json(text, VisualizationJob) is spec
    again = job.spec_from_json(text + " ", VisualizationJob)
    assert again == spec
    assert again.completed() == spec.completed()


def test_what_a_newer_version_says_more_is_left_out() -> None:
    text = json.dumps({**json.loads(job.spec_to_json(question(4), VisualizationJob)), "color": "blue"})
    assert job.spec_from_json(text, VisualizationJob) == question(4)


def test_what_is_no_question_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ValidationError):
            job.spec_from_json("{}", VisualizationJob)
