"""One table of codes, and what a problem looks like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from proxygrad.protocol.problems import MEDIA_TYPE, ProblemCode
from service.problems import KINDS, ProblemError, problem_responses

PAGE = Path(__file__).parents[2] / "docs/problems.md"


def test_every_code_has_a_kind_and_no_kind_is_without_a_code() -> None:
    assert set(get_args(ProblemCode)) == set(KINDS)


@pytest.mark.parametrize("code", get_args(ProblemCode))
def test_a_problem_repeats_what_its_code_means(code: ProblemCode) -> None:
    details = ProblemError(code, "what happened").details()
    kind = KINDS[code]
    assert 400 <= kind.status < 600
    assert (details.code, details.status, details.title) == (code, kind.status, kind.title)
    assert details.type.endswith(f":{code}")


@pytest.mark.parametrize("code", [code for code, kind in KINDS.items() if kind.status == 503])
def test_what_passes_by_itself_says_when_to_try_again(code: ProblemCode) -> None:
    # A model that could not be loaded needs its operator: trying again does not help.
    assert ("Retry-After" in ProblemError(code, "").headers()) == (code != "model_unavailable")


def test_documented_codes_are_grouped_by_status() -> None:
    responses = problem_responses("unknown_model", "no_worker", "unknown_layer")
    assert list(responses) == [404, 503]
    assert "`unknown_model`" in responses[404]["description"]
    assert "`unknown_layer`" in responses[404]["description"]
    assert list(responses[404]["content"]) == [MEDIA_TYPE]
    assert "Retry-After" in responses[503]["headers"]
    assert "headers" not in responses[404]


def test_the_page_lists_every_code_with_its_status_and_retry_time() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (\d+|–) \| \S.*\|$", PAGE.read_text(), re.MULTILINE)
    listed = {code: (int(status), None if after == "–" else int(after)) for status, code, after in rows}
    assert listed == {code: (kind.status, kind.retry_after_s) for code, kind in KINDS.items()}
    assert len(rows) == len(KINDS)
