"""Every objective of a request is offered by the layers it is for, and computed when it is requested."""

from __future__ import annotations

from typing import get_args

import pytest
import redis as redis_client

pytest.importorskip("torch", reason="a worker computes with torch")

import torch
from torch import nn

from proxygrad.engine.engine import Engine
from proxygrad.networks.network import Network
from proxygrad.spec import ObjectiveKind
from service.settings import Settings
from tests.service.conftest import Http
from tests.service.scenarios.test_class_names import Lending
from tests.support.eventually import until
from tests.support.worker_in_process import working
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.storage.store import Store

pytestmark = pytest.mark.engine


def test_every_objective_can_be_requested_over_http(
    redis: redis_client.Redis, settings: Settings, http: Http
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6))
    network = Network(module, (1, 8, 8), name="plain")
    with (
        Engine() as engine,
        working(redis, Store.from_url(settings.store_url), engine, models=Lending(network)),
    ):
        catalog.publish(redis, "worker-1", [ServedModel(name="plain", info=network.info)], ttl_s=60)
        layers = http.get("/v1/models/plain/layers").json()["layers"]
        offered = {objective: layer["name"] for layer in layers for objective in layer["objectives"]}
        assert set(offered) == set(get_args(ObjectiveKind))
        for objective, layer in offered.items():
            request = {"model": "plain", "layer": layer, "unit": 2, "steps": 4, "objective": objective}
            path = http.ask(json=request).headers["location"]
            until(lambda path=path: http.get(path).json()["state"] == "succeeded")  # type: ignore[misc]
            result = http.get(path).json()["result"]
            assert result["spec"]["objective"] == objective
            assert result["rank"] is not None
