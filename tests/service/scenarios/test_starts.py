"""Several starts over HTTP, through a gateway, a queue and a worker with a real engine."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_client
from fastapi import FastAPI

pytest.importorskip("torch", reason="a worker computes with torch")

from proxygrad.engine.engine import Engine
from proxygrad.models import Catalog
from service.settings import ServiceSettings
from tests.service.conftest import Http
from tests.service.scenarios.test_job_kinds import Lending
from tests.support.worker_in_process import working
from workers.fleet import catalog
from workers.jobs.kinds.registry import capabilities
from workers.storage.store import Store

pytestmark = pytest.mark.engine

QUESTION: dict[str, Any] = {"model": "digits", "layer": "layer3", "unit": 7, "preset": "max", "steps": 16}


def test_the_answer_says_which_start_was_chosen_and_the_picture_is_that_of_its_seed(
    app: FastAPI, redis: redis_client.Redis, settings: ServiceSettings
) -> None:
    lending, http = Lending(Catalog.from_file().load("digits")), Http(app)
    catalog.publish(redis, "host", lending.served, 60, capabilities)
    accepted = http.ask(json=QUESTION | {"images": 2, "starts": 3, "seed": 5, "compare": True})
    assert accepted.status_code == 202, accepted.text
    store = Store.from_url(settings.store_url)
    with Engine() as engine, working(redis, store, engine, models=lending):
        answer = http.get(accepted.headers["location"] + "?wait=60").json()
    assert answer["state"] == "succeeded", answer
    spec, images = answer["spec"], answer["result"]["images"]
    assert (spec["slope"], spec["starts"], spec["trial_steps"]) == ("auto", 3, 4)
    assert [[start["seed"] for start in image["starts"]] for image in images] == [[5, 6, 7], [8, 9, 10]] * 2
    for image, listed in zip(images, answer["images"], strict=True):
        chosen = [start for start in image["starts"] if start["chosen"]]
        assert [start["seed"] for start in chosen] == [image["seed"]] == [listed["seed"]]
        assert chosen[0]["activation"] == max(start["activation"] for start in image["starts"])
        assert len(image["curve"]) == 17


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slope": "steep"}, "slope: should be 0 to 1, or 'auto', not 'steep'"),
        ({"slope": 2}, "slope: should be 0 to 1, or 'auto', not 2"),
        ({"starts": 17}, "starts: should be 1 to 16, not 17"),
        ({"starts": 2, "trial_steps": 16}, "trial_steps 16 must be below steps 16"),
        ({"starts": 1, "trial_steps": 2}, "trial_steps 2 with starts 1: there is nothing to choose from"),
        ({"starts": 2, "images": 2, "diversity": 1}, "starts 2 with diversity 1"),
        ({"slope": "auto", "slope_end": 0.1}, "slope_end 0.1 applies to a slope that is a number"),
        ({"sampler": "langevin", "starts": 2}, "applies to sampler 'ascent', not 'langevin'"),
    ],
)
def test_what_does_not_fit_is_told(served: Http, changes: dict[str, Any], message: str) -> None:
    body = {name: value for name, value in QUESTION.items() if "sampler" not in changes or name != "preset"}
    body = {name: value for name, value in body.items() if "sampler" not in changes or name != "steps"}
    response = served.ask(json=body | changes)
    assert response.status_code == 422
    assert message in response.json()["detail"]
