"""Every case of the corpus through the library, the engine and what HTTP answers with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from proxygrad import Engine, Network, Objective, Spec, maximize
from proxygrad.engine.rendering import Rendering
from proxygrad.maximization.parsing import as_objective
from proxygrad.protocol.visualizations import Visualization
from proxygrad.spec import ModelInfo
from service.backend.resources.visualizations import document
from tests.corpus.batches import ALONE, BATCHES, FOLDED
from tests.corpus.case import Case
from tests.corpus.copies import COPIES
from tests.corpus.outputs import OUTPUTS
from tests.corpus.rectifiers import RECTIFIERS
from tests.corpus.slow_loop import slow_loop
from workers.execution.kinds.visualization import Images
from workers.jobs.kinds.visualization import VisualizationJob

CORPUS: dict[str, Case] = {**BATCHES, **COPIES, **OUTPUTS, **RECTIFIERS}
STEPS, SIZE, SLOPE = 3, 0.02, 0.3
SETTINGS: dict[str, Any] = {"preset": "max", "starts": 1, "gaf": "none", "steps": STEPS, "step_size": SIZE}

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning"
)  # torch's own, of copies of exported networks


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture(params=CORPUS)
def case(request: pytest.FixtureRequest) -> Case:
    return CORPUS[request.param]


def network_of(case: Case) -> Network:
    return Network(case.build(case.act), case.shape, name="odd")


def slow(case: Case, unit: int, slope: float, seed: int = 0) -> list[float]:
    return slow_loop(case, unit, slope, STEPS, SIZE, seed)


def close(curve: list[float]) -> object:
    return pytest.approx(curve, rel=2e-4, abs=2e-5)


def objective(network: Network, unit: int) -> Objective:
    return as_objective(f"output:{unit}", network)


def test_three_at_once_are_what_each_is_alone(case: Case) -> None:
    network = network_of(case)
    asked = [objective(network, unit) for unit in case.units]
    slopes = [SLOPE, 0.0, 2 * SLOPE]
    single = maximize(network, asked[0], slope=SLOPE, **SETTINGS)
    together = maximize(network, asked, slope=slopes, **SETTINGS)
    assert list(single.curve) == close(slow(case, case.units[0], SLOPE))
    for found, unit, slope in zip(together, case.units, slopes, strict=True):
        assert list(found.curve) == close(slow(case, unit, slope))
        assert found.activation == pytest.approx(max(found.curve), rel=2e-4, abs=2e-5)
    assert bool(network.unreached) != case.reached


def test_the_engine_and_what_is_stored_and_answered(case: Case, engine: Engine) -> None:
    network = network_of(case)
    published = ModelInfo.model_validate_json(network.info.model_dump_json())
    layer = network.layer("output").name
    compared = Spec.model_validate(
        {"model": "odd", "layer": layer, "unit": case.units[0], "slope": SLOPE, "compare": True, **SETTINGS}
    )
    other = compared.model_copy(update={"unit": case.units[2], "compare": False, "seed": 5})
    futures = [engine.submit(network, spec.resolve(published)) for spec in (compared, other)]
    first, second = (future.result(60) for future in futures)
    answer = answered(first, compared.resolve(published))
    assert answer.result is not None
    curves = [list(image.curve) for image in answer.result.images]
    assert curves == [close(slow(case, case.units[0], slope)) for slope in (SLOPE, 0.0)]
    assert list(second.curve) == close(slow(case, case.units[2], SLOPE, seed=5))
    assert answer.result == first.result
    assert answer.result.class_probabilities is None or network.layer("output").kind == "logits"


def answered(rendering: Rendering, spec: Spec) -> Visualization:
    """What a client reads of a rendering that a worker has stored."""
    job = VisualizationJob(id="0" * 32, spec=spec, state="succeeded", created_at=1.0, steps=spec.steps)
    images = Images(job, rendering)
    done = job.model_copy(update=images.fields(images.files))
    fields = {name.encode(): str(value).encode() for name, value in done.to_fields().items()}
    read = VisualizationJob.from_fields(job.id, fields)
    answer = document(read, None, None, now_s=2.0).model_dump_json(by_alias=True)
    assert json.loads(answer)["state"] == "succeeded"
    return Visualization.model_validate_json(answer)


@pytest.mark.parametrize("name", BATCHES)
def test_how_images_are_batched_is_found_by_trying(name: str) -> None:
    batching = network_of(BATCHES[name]).batching
    assert (bool(batching.alone), batching.folded) == (name in ALONE, name in FOLDED)


@pytest.mark.parametrize("name", COPIES)
def test_the_owners_modules_never_run(name: str) -> None:
    module = COPIES[name].build(torch.relu)
    modules = set(module.modules())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    ran = list[torch.nn.Module]()
    for each in modules:
        each.register_forward_pre_hook(lambda of, inputs: ran.append(of) if of in modules else None)
    network = Network(module, (3, 12, 12))
    maximize(network, objective(network, 1), **SETTINGS)
    assert ran == []
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
