"""Kinds are looked up: no module but those of a kind knows its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxygrad.spec.identity import identity
from tests.support.model_on_paper import MODEL, question
from workers.broker.limits import DEFAULT_KIND
from workers.errors import UnknownKind
from workers.jobs.kinds.registry import KINDS, capabilities, job_from_fields, job_from_json

ROOT = Path(__file__).parents[4]
#: Where the name of a kind may stand: in the modules of the kind, and where records without one get theirs.
ALLOWED = {
    "workers/broker/limits.py",
    "workers/jobs/kinds/visualization.py",
    "workers/execution/kinds/visualization.py",
}
SOURCES = sorted(
    path
    for room in ("workers", "service")
    for pattern in ("*.py", "*.lua")
    for path in (ROOT / room).rglob(pattern)
)


def test_nobody_asks_whether_a_job_is_a_visualization() -> None:
    comparison = re.compile(
        r"""\b(?:job|record|delivery|batch|submission|index)\.kind\s*[=!]=|[=!]=\s*["']visualization["']"""
    )
    assert len(SOURCES) > 150
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in SOURCES
        if str(path.relative_to(ROOT)) not in ALLOWED
        for line in path.read_text().splitlines()
        if comparison.search(line)
    ]
    assert found == []


def test_records_from_before_there_were_kinds_are_visualizations() -> None:
    assert DEFAULT_KIND in KINDS


def test_the_kind_is_part_of_every_id_but_that_of_visualizations() -> None:
    spec = question(3).resolve(MODEL)
    assert identity(spec, MODEL) == question(3).identity(MODEL)
    assert len({identity(spec, MODEL, kind) for kind in (None, "attribution", "statistics")}) == 3


def test_a_visualization_needs_the_model_alone() -> None:
    assert capabilities("tiny") == ("tiny", "attribution/tiny")


def test_an_unknown_kind_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownKind, match="'novel' here; valid: attribution, visualization"):
        job_from_fields("0" * 32, {b"kind": b"novel"})
    with pytest.raises(UnknownKind):
        job_from_json(b'{"id": "0", "kind": "novel"}')


def test_an_event_of_an_attribution_has_the_value_of_the_objective() -> None:
    kind = KINDS["attribution"]
    assert kind.event_data("succeeded", 2.5) == {"value": 2.5}
    assert kind.event_data("failed", 2.5) == {"value": None}
