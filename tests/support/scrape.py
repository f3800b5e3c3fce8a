"""What a scrape of `/metrics` says, by name and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.service.conftest import Http

REQUESTS = "proxygrad_http_request_duration_seconds_count"

Labels = frozenset[tuple[str, str]]


def samples(text: str) -> dict[str, dict[Labels, float]]:
    """Values by name and labels."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def scrape(http: Http, **request: Any) -> dict[str, dict[Labels, float]]:
    answer = http.get("/metrics", **request)
    assert answer.status_code == 200, answer.text
    return samples(answer.text)


def value(found: Mapping[str, Mapping[Labels, float]], name: str, **labels: str) -> float:
    return found[name][frozenset(labels.items())]


def requests(found: Mapping[str, Mapping[Labels, float]]) -> set[tuple[str, str, str, float]]:
    """Method, route and status of what was counted, and how often."""
    counted = [(dict(labels), count) for labels, count in found.get(REQUESTS, {}).items()]
    return {(labels["method"], labels["route"], labels["status"], count) for labels, count in counted}
