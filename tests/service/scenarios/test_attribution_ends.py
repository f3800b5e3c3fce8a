"""How attributions end, and what webhooks tell of it: a gateway, a queue, a worker with a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import redis as redis_client
from fastapi import FastAPI
from standardwebhooks import Webhook

pytest.importorskip("torch", reason="a worker computes with torch")

from proxygrad.engine.engine import Engine
from proxygrad.models import Catalog
from service.app import create_app
from service.settings import ServiceSettings
from service.webhooks.signing import Signer
from tests.service.api.test_attributions import QUESTION, drawn
from tests.service.conftest import Http
from tests.service.scenarios.test_job_kinds import Lending
from tests.service.webhooks.test_dispatcher import SECRET, deliver
from tests.support.webhook_receiver import Receiver, receiving
from tests.support.worker_in_process import working
from workers.fleet import catalog
from workers.jobs import inputs
from workers.jobs.inputs import INPUT
from workers.jobs.kinds.registry import capabilities
from workers.storage.store import Store

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def lending() -> Lending:
    return Lending(Catalog.from_file().load("digits"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def app(settings: ServiceSettings, receiver: Receiver) -> Iterator[FastAPI]:
    """A gateway that sends webhooks to the receiver."""
    environ = {
        "REDIS_URL": settings.redis_url or "",
        "PROXYGRAD_HOME": str(settings.home),
        "PROXYGRAD_WEBHOOK_HOSTS": receiver.url,
        "PROXYGRAD_WEBHOOK_PRIVATE": "127.0.0.1/32",
        "PROXYGRAD_WEBHOOK_SECRET": SECRET,
    }
    app = create_app(ServiceSettings.from_env(environ))
    yield app
    app.state.backend.redis.close()


@pytest.fixture
def http(app: FastAPI, redis: redis_client.Redis, lending: Lending) -> Http:
    catalog.publish(redis, "host", lending.served, 60, capabilities)
    return Http(app)


@pytest.fixture
def kept(settings: ServiceSettings) -> Store:
    return Store.from_url(settings.store_url)


@contextmanager
def at_work(redis: redis_client.Redis, store: Store, lending: Lending) -> Iterator[None]:
    with Engine() as engine, working(redis, store, engine, models=lending):
        yield


def requested(http: Http, **changes: Any) -> str:
    form = {"attribution": json.dumps(QUESTION | changes)}
    response = http("POST", "/v1/attributions", files={"image": ("a.png", drawn(), "image/png")}, data=form)
    assert response.status_code == 202, response.text
    return cast(str, response.json()["id"])


def ended(http: Http, job_id: str) -> dict[str, Any]:
    return cast(dict[str, Any], http.get(f"/v1/attributions/{job_id}?wait=60").json())


def delivered(redis: redis_client.Redis, receiver: Receiver, count: int) -> list[dict[str, Any]]:
    """The events of so many deliveries, each with a signature that fits."""
    deliver(redis, [receiver.url], lambda: len(receiver.received) >= count)
    verifier = Webhook(Signer(SECRET).secrets("anonymous")[0])
    return [verifier.verify(each.body, each.headers) for each in receiver.received]


def test_a_job_whose_picture_is_gone_fails_and_succeeds_once_it_is_sent_again(
    http: Http,
    redis: redis_client.Redis,
    kept: Store,
    lending: Lending,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "PATIENCE_S", 0.05)
    job_id = requested(http, webhook=f"{receiver.url}/first")
    kept.delete(f"{job_id}/{INPUT}")
    with at_work(redis, kept, lending):
        failed = ended(http, job_id)
        assert (failed["state"], failed["problem"]["code"]) == ("failed", "input_gone")
        assert requested(http, webhook=f"{receiver.url}/second") == job_id
        succeeded = ended(http, job_id)
    assert succeeded["state"] == "succeeded", succeeded
    links = {"self": f"/v1/attributions/{job_id}"}
    first, second = sorted(delivered(redis, receiver, 2), key=lambda event: cast(str, event["type"]))
    assert (first["type"], second["type"]) == ("attribution.failed", "attribution.succeeded")
    told = {"id": job_id, "state": "failed", "value": None, "problem": failed["problem"], "links": links}
    assert first["data"] == told
    told = {"state": "succeeded", "value": succeeded["result"]["value"], "problem": None}
    assert second["data"] == {"id": job_id, **told, "links": links}
    assert {each.path for each in receiver.received} == {"/first", "/second"}


def test_a_retry_finds_no_picture_either(
    http: Http, redis: redis_client.Redis, kept: Store, lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry brings none; the problem says what does."""
    monkeypatch.setattr(inputs, "PATIENCE_S", 0.05)
    job_id = requested(http)
    kept.replace(f"{job_id}/{INPUT}", b"half of it")
    with at_work(redis, kept, lending):
        assert ended(http, job_id)["problem"]["code"] == "input_gone"
        assert http("POST", f"/v1/attributions/{job_id}/retry").status_code == 202
        problem = ended(http, job_id)["problem"]
    assert problem["code"] == "input_gone"
    assert "again" in problem["detail"]
