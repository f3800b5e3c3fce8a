"""Real trained networks, where their weights are at hand: the units that plain ascent cannot move."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxygrad.engine.engine import Engine
from proxygrad.models import Catalog
from proxygrad.networks.network import Network
from proxygrad.spec import Result, Spec

MODELS = """
[models.squeezenet]
builder = "torchvision:squeezenet1_0"
weights = "{folder}/squeezenet1_0.safetensors"
input_shape = [3, 224, 224]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]

[models.resnet20]
builder = "resnet20:resnet20"
weights = "{folder}/cifar10_resnet20.safetensors"
input_shape = [3, 32, 32]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""

#: Units whose activation is exactly 0 around gray at 112 px, with seed 0.
DEAD = [
    ("features.7", "channel", 1),
    ("features.7", "neuron", 1),
    ("features.10", "channel", 33),
    ("features.10", "neuron", 20),
    ("features.12", "channel", 20),
    ("features.12", "neuron", 20),
]


@pytest.fixture(scope="module")
def models(shared_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = tmp_path_factory.mktemp("models") / "models.toml"
    path.write_text(MODELS.format(folder=shared_models))
    return Catalog.from_file(path)


def visualize(network: Network, specs: list[Spec]) -> list[Result]:
    with Engine() as engine:
        return [ticket.result(120).result for ticket in [engine.submit(network, spec) for spec in specs]]


def test_squeezenet_dead_units_come_alive(models: Catalog) -> None:
    network = models.load("squeezenet")
    base = {"model": "squeezenet", "preset": "max", "steps": 16, "size_px": 112}
    specs = [
        Spec.model_validate({**base, "layer": layer, "objective": objective, "unit": unit, "slope": slope})
        for layer, objective, unit in DEAD
        for slope in (0.0, 0.05)
    ]
    results = visualize(network, specs)
    for plain, proxy in zip(results[::2], results[1::2], strict=True):
        assert (plain.stuck, plain.achieved_activation) == (True, 0.0), plain.spec
        assert not proxy.stuck
        assert proxy.achieved_activation > 100.0, (
            proxy.spec
        )  # this network's activations are in the thousands


def test_resnet20_with_functional_rectifiers(models: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples"))
    network = models.load("resnet20")
    assert network.info.layer("linear").kind == "logits"
    ask = {"model": "resnet20", "layer": "linear", "steps": 32}
    plain, proxy = visualize(
        network, [Spec.model_validate({**ask, "unit": 3, "slope": slope}) for slope in (0.0, 0.05)]
    )
    assert min(plain.achieved_activation, proxy.achieved_activation) > 10
    assert plain.curve != proxy.curve, "the functional rectifiers were not reached"
