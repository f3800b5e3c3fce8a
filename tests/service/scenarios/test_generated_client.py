"""A client that a kept tool generates from the committed document, against a running service."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.fuzz.service import service

REPOSITORY = Path(__file__).resolve().parents[3]
DOCUMENT = REPOSITORY / "docs/openapi.json"
CONFIGURATION = REPOSITORY / "tools/openapi-python-client.yaml"
NAME = "generated_proxygrad"

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package, importable while the tests of this file run."""
    pytest.importorskip("openapi_python_client", reason="the generator is among the development tools")
    folder = tmp_path_factory.mktemp("client")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"),
            *("--path", str(DOCUMENT), "--output-path", str(folder / NAME), "--config", str(CONFIGURATION)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("WARNING|ERROR", done.stdout + done.stderr), done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(NAME)
    finally:
        sys.path.remove(str(folder))
        for module in [name for name in sys.modules if name.partition(".")[0] == NAME]:
            del sys.modules[module]


@pytest.fixture(scope="module")
def client(generated: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a service with a real worker."""
    pytest.importorskip("torch", reason="workers compute with torch")
    with (
        service(tmp_path_factory.mktemp("home")) as stack,
        generated.Client(base_url=stack.url, timeout=60) as client,
    ):
        yield client


def call(name: str) -> ModuleType:
    """The generated module of an operation."""
    return importlib.import_module(f"{NAME}.api.{name}")


def models() -> Any:
    return importlib.import_module(f"{NAME}.models")


def question(**settings: Any) -> Any:
    return models().VisualizationRequest(model="digits", layer="fc", unit=3, **settings)


def test_a_question_is_asked_waited_for_and_its_picture_fetched(client: Any) -> None:
    asked = call("visualizations.create_visualization").sync(
        client=client, body=question(steps=5), prefer="wait=30"
    )
    assert asked.state is models().State.SUCCEEDED
    assert asked.result.achieved_activation > asked.result.start_activation
    assert (asked.spec.steps, asked.spec.seed) == (5, 0)
    picture = call("visualizations.read_image").sync_detailed(asked.id, "0", client=client)
    assert picture.parsed.payload.read()[:8] == b"\x89PNG\r\n\x1a\n"
    read = call("visualizations.read_visualization").sync(asked.id, client=client)
    assert read.to_dict()["result"] == asked.to_dict()["result"]


def test_what_is_not_given_is_left_to_the_preset(client: Any) -> None:
    body = question(preset=models().Preset.FAST)
    asked = call("visualizations.create_visualization").sync(client=client, body=body, prefer="wait=30")
    assert (asked.spec.steps, asked.spec.parameterization.value) == (12, "fourier")


def test_lists_are_filtered(client: Any) -> None:
    create = call("visualizations.create_visualization")
    asked = create.sync(client=client, body=question(steps=6), prefer="wait=30")
    page = call("visualizations.list_visualizations").sync(
        client=client, state=[models().State.SUCCEEDED], model=["digits"]
    )
    assert asked.id in [each.id for each in page.visualizations]
    page = call("visualizations.list_visualizations").sync(client=client, model=["another"])
    assert (page.visualizations, page.links.next_) == ([], None)


def test_a_run_is_canceled(client: Any) -> None:
    body = question(steps=150, size_px=32, seed=7, priority=models().Priority.BATCH)
    asked = call("visualizations.create_visualization").sync(client=client, body=body)
    deadline_s = time.monotonic() + 30
    while asked.state in (models().State.QUEUED, models().State.RUNNING):
        assert time.monotonic() < deadline_s
        call("visualizations.cancel_visualization").sync(asked.id, client=client)
        asked = call("visualizations.read_visualization").sync(asked.id, client=client, wait=1)
    # A short run may end well before it is stopped.
    assert asked.state in (models().State.CANCELED, models().State.SUCCEEDED)


def test_a_problem_is_an_object_with_its_code(client: Any) -> None:
    body = models().VisualizationRequest(model="digits", layer="fc", unit=99)
    refused = call("visualizations.create_visualization").sync_detailed(client=client, body=body)
    assert refused.status_code == 422
    assert isinstance(refused.parsed, models().ProblemDetails)
    assert refused.parsed.code is models().ProblemCode.UNIT_OUT_OF_RANGE
    assert (refused.parsed.errors[0].value, refused.parsed.errors[0].maximum) == (99, 9)


def test_models_and_layers_are_listed(client: Any) -> None:
    served = call("models.list_models").sync(client=client)
    assert "digits" in [each.name for each in served.models]
    layer = call("models.read_layer").sync("digits", "fc", client=client)
    assert (layer.units, layer.kind) == (10, models().LayerKind.LOGITS)
