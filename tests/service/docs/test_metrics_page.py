"""`/metrics`: the forms in which it is answered, and that docs/metrics.md is true of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.auth import key_ring
from service.server.run import _is_worth_logging
from tests.service.conftest import Http
from tests.service.middleware.test_authentication import QUESTION, made
from tests.support.scrape import samples, scrape

PAGE = (Path(__file__).parents[3] / "docs/metrics.md").read_text()


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)


# -- forms ---------------------------------------------------------------------------------------------------

#: As Prometheus 3 sends it.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


def test_who_accepts_openmetrics_gets_it(served: Http) -> None:
    served.get("/livez")
    answer = served.get("/metrics", headers={"Accept": ACCEPT})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.headers["cache-control"] == "no-store"
    read = openmetrics.text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
    families = {family.name: family for family in read}
    assert families["proxygrad_jobs_ended"].type == "counter"
    assert families["proxygrad_build"].type == "info"


@pytest.mark.parametrize(
    "accept",
    [
        *("", "*/*", "text/html", "text/plain;version=0.0.4", "text/plain;version=x", ";=,;=;,"),
        *("application/openmetrics-text;version=1.x", "application/openmetrics-text;version=" + "9" * 5000),
        *("application/openmetrics-text", "application/openmetrics-text;version=;escaping=x"),
    ],
)
def test_whatever_is_accepted_it_is_one_of_the_two(http: Http, accept: str) -> None:
    answer = http.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] in ("text/plain", "application/openmetrics-text")
    assert "proxygrad_redis_up 1.0" in answer.text


def test_scrapes_are_not_in_the_access_log() -> None:
    def line(path: str) -> logging.LogRecord:
        args = ("127.0.0.1:1", "GET", path, "1.1", 200)
        return logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "%s %s %s %s %d", args, None)

    assert not any(map(_is_worth_logging, map(line, ("/metrics", "/livez", "/readyz"))))
    assert _is_worth_logging(line("/v1/models"))


# -- docs/metrics.md -----------------------------------------------------------------------------------------


@pytest.fixture
def full(served: Http) -> str:
    """A scrape in which nothing is missing."""
    served.ask(json=QUESTION)
    return served.get("/metrics").text


def test_the_page_has_each_metric_with_its_type_and_labels_and_no_other(full: str) -> None:
    said = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(proxygrad_\w+)` \| (\w+) \|([^|]*)\|", PAGE, re.M)
    }
    there = {}
    for family in text_string_to_metric_families(full):
        if family.name.startswith("proxygrad_"):
            name = family.name + "_total" * (family.type == "counter")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            there[name] = (family.type, labels)
    assert {name: (kind, set(labels)) for name, (kind, labels) in said.items()} == there


def test_its_queries_ask_for_what_there_is(full: str) -> None:
    yaml = pytest.importorskip("yaml", reason="reading YAML needs pyyaml, of the extra `dev`")
    found = samples(full)
    there = {name: {label for labels in each for label, _ in labels} for name, each in found.items()}
    rules = [
        each
        for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
        for each in _expressions(yaml.safe_load(block))
    ]
    queries = rules + re.findall(r"```promql\n(.*?)```", PAGE, re.S)
    assert len(queries) >= 9
    for query in queries:
        names = re.findall(r"(proxygrad_\w+)(?:\{([^}]*)\})?", query)
        assert names, query
        for name, selectors in names:
            assert name in there, query
            assert set(re.findall(r"(\w+)[=!]~?\"", selectors)) <= there[name], query
        grouped = {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")}
        assert grouped <= set[str]().union(*(there[name] for name, _ in names)), query


def _expressions(document: dict[str, Any]) -> Iterator[str]:
    """Of alerts and triggers."""
    for group in document.get("groups", ()):
        yield from (rule["expr"] for rule in group["rules"])
    for trigger in document.get("triggers", ()):
        yield trigger["metadata"]["query"]


def test_the_scope_that_it_names_is_enough(served: Http, redis: redis_client.Redis) -> None:
    scopes: Callable[[str], Any] = re.compile(r"keys create prometheus --scopes (\w+)").search
    found = scopes(PAGE)
    assert found is not None
    scrape(served, headers=made(redis, found[1]))
