"""Classifiers of torchvision over HTTP, from README's `models.toml`: every route of a job and a batch.

README's SqueezeNet has its trained weights where they are at hand, and random ones elsewhere. Beside it is
a classifier without weights and names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch", reason="a worker computes with torch")

import torch
from safetensors.torch import load_file

from proxygrad.models.builders import build
from tests.conftest import REPOSITORY
from tests.support.command_processes import Running
from tests.support.eventually import until

pytestmark = pytest.mark.engine

(README,) = re.findall(r"^```toml\n(.*?)^```$", (REPOSITORY / "README.md").read_text(), re.M | re.S)
RANDOM = '[models.random]\nbuilder = "torchvision:squeezenet1_1"\n'
#: Where torchvision looks for the weights that README names, before it would download them.
CACHED = "torch/hub/checkpoints/squeezenet1_0-b66bff10.pth"


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("real")
    (folder / "home").mkdir()
    (folder / "home" / "models.toml").write_text(README + RANDOM)
    (folder / CACHED).parent.mkdir(parents=True)
    shared = trained()
    state = load_file(shared) if shared.is_file() else build("torchvision:squeezenet1_0").state_dict()
    torch.save(state, folder / CACHED)
    environ = {"TORCH_HOME": str(folder / "torch"), "PROXYGRAD_THREADS": "1"}
    stack = Running(folder / "home", "serve", "--port", "0", environ=environ)
    try:
        with httpx.Client(base_url=stack.url(), timeout=120) as client:
            yield client
    finally:
        stack.end()


def trained() -> Path:
    return REPOSITORY.parent / "shared" / "models" / "squeezenet1_0.safetensors"


def test_the_operator_is_told_what_is_missing(http: httpx.Client) -> None:
    models = {model["name"]: model for model in http.get("/v1/models").json()["models"]}
    assert models["squeezenet"]["notes"] == []
    assert models["squeezenet"]["classes"][1] == "goldfish"
    (note,) = models["random"]["notes"]
    assert note.startswith("no class names")


@pytest.mark.parametrize(
    ("model", "layer", "unit"),
    [("squeezenet", "output", 1), ("squeezenet", "features.3", 5), ("random", "output", 3)],
)
def test_every_route_answers(http: httpx.Client, model: str, layer: str, unit: int) -> None:
    body = {"model": model, "layer": layer, "unit": unit, "steps": 4, "size_px": 48, "compare": True}
    asked = http.post("/v1/visualizations", json=body, headers={"Prefer": "wait=60"})
    assert asked.status_code == 200, asked.text
    path = asked.headers["Location"]
    job = http.get(path).json()
    assert (job["state"], job["links"]["self"]) == ("succeeded", path)
    classes = job["result"]["class_probabilities"]
    assert [each["name"] is None for each in classes] == [model == "random"] * len(classes)
    for image in job["images"]:
        picture = http.get(image["links"]["self"])
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert '"state":"succeeded"' in http.get(f"{path}/events").text
    assert http.post("/v1/visualizations", json=body).status_code == 200
    assert http.post(f"{path}/cancel").json()["code"] == "visualization_ended"
    assert http.post(f"{path}/retry").json()["code"] == "visualization_ended"
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


@pytest.mark.parametrize("model", ["squeezenet", "random"])
def test_a_batch_and_its_sheet(http: httpx.Client, model: str) -> None:
    body = {"model": model, "layer": "features.3", "units": [0, 1], "steps": 2, "size_px": 48}
    path = http.post("/v1/batches", json=body).headers["Location"]
    until(lambda: http.get(path).json()["state"] == "succeeded", 120)
    assert http.get(f"{path}/atlas").headers["content-type"] == "image/png"
    assert http.delete(path).status_code == 204


@pytest.mark.skipif(not trained().is_file(), reason=f"needs {trained().name} in shared/models")
def test_a_trained_network_is_moved_in_which_plain_ascent_is_stuck(http: httpx.Client) -> None:
    body = {"model": "squeezenet", "layer": "features.12", "unit": 20, "preset": "max", "steps": 16}
    answer = http.post(
        "/v1/visualizations",
        json={**body, "size_px": 112, "compare": True},
        headers={"Prefer": "wait=60"},
    ).json()
    assert answer["result"]["baseline"]["stuck"] is True
    assert answer["result"]["achieved_activation"] > 100
