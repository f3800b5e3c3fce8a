"""A unit of each family, alone, among others and compared, is what a plain loop of torch makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from proxygrad import Engine, Network, Spec, maximize
from proxygrad.backward.surrogate import surrogate
from proxygrad.images import start_image
from proxygrad.networks.batching import Batching
from tests.corpus.families import FAMILIES

SHAPE = (3, 32, 32)
STEPS, SIZE = 2, 0.02
SETTINGS: dict[str, Any] = {
    "preset": "max",
    "starts": 1,
    "gaf": "none",
    "steps": STEPS,
    "step_size": SIZE,
    "spread_max_pool": 0.0,
}

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def first_tensor(output: Any) -> torch.Tensor:
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return found


def slow_loop(module: torch.nn.Module, unit: int, slope: float) -> list[float]:
    """On the module itself, one image at a time."""
    x, curve = start_image(SHAPE, seed=0).unsqueeze(0), list[float]()
    for step in range(STEPS + 1):
        with surrogate(slope):
            value = first_tensor(module(x.requires_grad_()))[0, unit]
        (gradient,) = torch.autograd.grad(value, x)
        curve.append(float(value.detach()))
        length = gradient.square().mean().sqrt()
        x = (x + SIZE * (1 - step / STEPS) * gradient / (length or 1)).detach().clamp(0, 1)
    return curve


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_comes_out_as_in_a_slow_loop(family: str) -> None:
    module = FAMILIES[family]().eval()
    network = Network(module, SHAPE, mean=0.0, std=1.0, name="family")
    assert network.layer("output").kind == "logits"
    assert (network.batching, network.unreached) == (Batching(), {}), "nothing odd about it"
    together = maximize(network, ["output:1", "output:0", "output:4"], slope=[0.1, 0.0, 0.3], **SETTINGS)
    for found, (unit, slope) in zip(together, ((1, 0.1), (0, 0.0), (4, 0.3)), strict=True):
        expected = slow_loop(module, unit, slope)
        assert list(found.curve) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    layer = network.layer("output").name
    asked = {"model": "family", "layer": layer, "unit": 1, "slope": 0.1, "compare": True, **SETTINGS}
    with Engine() as engine:
        result = engine.submit(network, Spec.model_validate(asked)).result(60).result
    curves = [list(image.curve) for image in result.images]
    assert curves == [pytest.approx(slow_loop(module, 1, slope), rel=1e-3, abs=1e-4) for slope in (0.1, 0.0)]
