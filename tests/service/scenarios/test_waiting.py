"""How soon a question is wanted, how many may wait, and why one waits that nobody takes."""

from __future__ import annotations

from datetime import datetime

import pytest
import redis as redis_client

from proxygrad.protocol.problems import Problem
from proxygrad.spec import ModelInfo
from service.app import create_app
from service.backend import model_registry
from service.settings import ServiceSettings
from tests.service.api.test_visualizations import QUESTION, asked, problem_of
from tests.service.conftest import Http, Player
from workers.broker.queue import PACE_KEY, QUEUE_KEY, WORKERS_KEYS, job_key
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel


def test_how_soon_it_is_wanted_is_no_part_of_the_question(served: Http) -> None:
    patient = served.ask(json=QUESTION | {"priority": "batch", "deadline_s": 60}).json()
    assert (patient["priority"], patient["blocked"]) == ("batch", None)
    asked_at, deadline_at = (datetime.fromisoformat(patient[name]) for name in ("created_at", "deadline_at"))
    assert (deadline_at - asked_at).total_seconds() == pytest.approx(60, abs=0.01)
    eager = served.ask(json=QUESTION).json()
    assert (eager["id"], eager["priority"], eager["deadline_at"]) == (patient["id"], "interactive", None)
    assert {"priority", "deadline_s"}.isdisjoint(eager["spec"])


def test_interactive_ones_go_first(served: Http) -> None:
    behind = asked(served, priority="batch")
    asked(served, unit=8)
    assert served.get(f"/v1/visualizations/{behind}").json()["queue_position"] == 1


def test_it_says_how_long_it_should_take_once_there_were_runs(
    served: Http, redis: redis_client.Redis
) -> None:
    job_id = asked(served)
    path = f"/v1/visualizations/{job_id}"
    assert served.get(path).json()["eta_s"] is None
    cost = float(redis.hget(job_key(job_id), "cost") or 0)
    redis.hset(PACE_KEY, mapping={"ran_s": 3.0, "model:digits": 4.5 / cost})
    redis.sadd(WORKERS_KEYS[1], "rq:worker:a.0")
    assert served.get(path).json()["eta_s"] == 4.5
    assert served.ask(json=QUESTION | {"unit": 9}).json()["eta_s"] == 4.5 + 3.0
    redis.hset(job_key(job_id), mapping={"state": "running", "started_at": 1.0, "expected_at": 4e9})
    assert served.get(path).json()["eta_s"] > 1e9
    redis.hset(job_key(job_id), mapping={"state": "canceled", "finished_at": 2.0})
    assert served.get(path).json()["eta_s"] is None


@pytest.mark.parametrize(
    ("field", "value"), [("priority", "urgent"), ("deadline_s", 0), ("deadline_s", 86_401)]
)
def test_no_other_urgency_is_taken(served: Http, field: str, value: object) -> None:
    found = problem_of(served.ask(json=QUESTION | {field: value}), 422, "invalid_request")
    assert found["errors"][0]["location"] == ["body", field]


@pytest.mark.parametrize(
    ("limit", "code"),
    [("PROXYGRAD_MAX_QUEUED", "queue_full"), ("PROXYGRAD_MAX_QUEUED_PER_CALLER", "caller_queue_full")],
)
def test_a_full_queue_takes_nothing_new_and_answers_the_rest(
    settings: ServiceSettings,
    redis: redis_client.Redis,
    info: ModelInfo,
    player: Player,
    limit: str,
    code: str,
) -> None:
    environ = {"REDIS_URL": settings.redis_url or "", "PROXYGRAD_HOME": str(settings.home), limit: "2"}
    catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=60)
    http = Http(create_app(ServiceSettings.from_env(environ)))
    answered = asked(http)
    player.succeed(answered)
    redis.delete(QUEUE_KEY, "proxygrad:waiting:anonymous")
    waiting = [asked(http, unit=unit) for unit in (1, 2)]
    refused = http.ask(json=QUESTION | {"unit": 3})
    found = problem_of(refused, 429, code)
    assert "2 jobs" in found["detail"]
    assert "nothing was queued" in found["detail"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert redis.llen(QUEUE_KEY) == 2
    assert asked(http, unit=1) == waiting[0]
    assert http.ask(json=QUESTION).status_code == 200


def test_a_job_that_no_live_worker_can_take_says_why(
    http: Http, redis: redis_client.Redis, info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_registry, "MAX_AGE_S", 0.0)

    def reason() -> str | None:
        blocked = http.get(f"/v1/visualizations/{job_id}").json()["blocked"]
        return None if blocked is None else str(blocked["code"])

    catalog.publish(redis, "one", [ServedModel(name="digits", info=info)], ttl_s=60)
    job_id = asked(http)
    assert reason() is None
    catalog.withdraw(redis, "one")
    assert reason() == "no_worker"
    catalog.publish(redis, "two", [], ttl_s=60)
    assert reason() == "model_not_served"
    problem_of(http.ask(json=QUESTION), 404, "unknown_model")
    broken = ServedModel(name="digits", problem=Problem(code="model_unavailable", detail="truncated"))
    catalog.publish(redis, "two", [broken], ttl_s=60)
    assert reason() == "model_unavailable"
