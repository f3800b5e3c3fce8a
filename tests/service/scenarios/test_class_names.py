"""A classifier whose classes have no names, or fewer names than logits, is served as any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis as redis_client

pytest.importorskip("torch", reason="a worker computes with torch")

import torch
from torch import nn

from proxygrad.engine.engine import Engine
from proxygrad.networks.network import Network
from service.settings import ServiceSettings
from tests.service.conftest import Http
from tests.support.eventually import until
from tests.support.worker_in_process import working
from workers.batches.expander import BatchExpander
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.storage.store import Store

pytestmark = pytest.mark.engine


class Lending:
    """Gives its one network to whoever computes with it."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.served = (ServedModel(name=network.name, info=network.info),)

    @contextmanager
    def lent(self, name: str) -> Iterator[Network]:
        yield self._network


@pytest.mark.parametrize("classes", [None, [], ["cat"]], ids=["none", "empty", "too few"])
def test_every_route_answers_for_it(
    redis: redis_client.Redis, settings: ServiceSettings, http: Http, classes: list[str] | None
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6))
    network = Network(module, (1, 8, 8), name="plain", classes=classes)
    question: dict[str, Any] = {"model": "plain", "layer": "1", "unit": 2, "steps": 4}
    batch = {"model": "plain", "layer": "1", "units": [2], "steps": 4}
    store, models = Store.from_url(settings.store_url), Lending(network)
    with Engine() as engine, working(redis, store, engine, models=models) as runtime:
        catalog.publish(redis, "worker-1", [ServedModel(name="plain", info=network.info)], ttl_s=60)
        path = http.ask(json=question).headers["location"]
        until(lambda: http.get(path).json()["state"] == "succeeded")
        accepted = http("POST", "/v1/batches", json=batch)
        batch_path = accepted.headers["location"]
        BatchExpander(runtime).round()
        until(lambda: http.get(batch_path).json()["state"] == "succeeded")

    body = http.get(path).json()
    names = {each["index"]: each["name"] for each in body["result"]["class_probabilities"]}
    assert len(names) == 5
    assert {name for index, name in names.items() if not (classes and index == 0)} == {None}
    assert http.ask(json=question).status_code == 200
    assert http.get("/v1/visualizations").json()["visualizations"][0]["id"] == body["id"]
    assert '"state":"succeeded"' in http.get(f"{path}/events").text
    assert http("POST", f"{path}/cancel").status_code == 409
    assert http("POST", f"{path}/retry").status_code == 409
    assert http.get(f"{path}/images/0").headers["content-type"] == "image/png"
    assert http.get(batch_path).json()["counts"]["succeeded"] == 1
    assert http("DELETE", path).status_code == 204
