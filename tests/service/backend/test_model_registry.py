"""What a gateway remembers of the catalog: what lets a question pass, for a second."""

from __future__ import annotations

import pytest
import redis as redis_client

from proxygrad.spec import ModelInfo
from service.backend import model_registry
from tests.service.api.test_visualizations import QUESTION, problem_of
from tests.service.conftest import Http
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel


def test_a_worker_that_has_just_come_is_noticed_at_once(
    http: Http, redis: redis_client.Redis, info: ModelInfo
) -> None:
    problem_of(http.ask(json=QUESTION), 503, "no_worker")
    catalog.publish(redis, "one", [], ttl_s=60)
    problem_of(http.ask(json=QUESTION), 404, "unknown_model")
    catalog.publish(redis, "one", [ServedModel(name="digits", info=info)], ttl_s=60)
    assert http.ask(json=QUESTION).status_code == 202


def test_one_that_has_gone_is_noticed_when_the_time_is_over(
    http: Http, redis: redis_client.Redis, info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_registry, "MAX_AGE_S", 1000.0)
    catalog.publish(redis, "one", [ServedModel(name="digits", info=info)], ttl_s=60)
    http.ask(json=QUESTION)
    catalog.withdraw(redis, "one")
    late = http.ask(json={**QUESTION, "unit": 8})
    assert (late.status_code, late.json()["blocked"]["code"]) == (202, "no_worker")
    monkeypatch.setattr(model_registry, "MAX_AGE_S", 0.0)
    problem_of(http.ask(json={**QUESTION, "unit": 9}), 503, "no_worker")
