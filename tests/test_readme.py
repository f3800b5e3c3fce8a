"""README.md does what it says: its commands are run as printed, its answers are compared."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from proxygrad.models import Catalog
from proxygrad.spec import Spec

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PRINTED_URL = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """The contents of README's code blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_curl_lines_work_as_printed(served_url: str, tmp_path: Path) -> None:
    printed = [block for block in blocks("sh") if "curl" in block]
    answers = []
    for block in printed:
        assert PRINTED_URL in block
        command = block.replace(PRINTED_URL, served_url)
        ran = subprocess.run(
            ["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        answers.append(ran.stdout)

    proxy, _, rest = answers
    (shown,) = blocks("json")
    answer = json.loads(proxy)
    assert answer["id"] == re.search(r'"id": "(\w+)"', shown)[1]  # type: ignore[index]
    assert answer["state"] == "succeeded"
    assert all(f'"{link}"' in shown for link in (answer["links"]["self"], answer["links"]["image"]))
    activation = re.search(r'"achieved_activation": ([\d.]+)', shown)
    assert activation
    assert answer["result"]["achieved_activation"] == pytest.approx(float(activation[1]), rel=1e-3)
    with Image.open(tmp_path / "unit.png") as picture:
        assert picture.size == (32, 32)

    decoder, at, values = json.JSONDecoder(), 0, []
    while at < len(rest.rstrip()):
        value, at = decoder.raw_decode(rest, at)
        values.append(value)
    compared, models, layers = values
    assert compared["result"]["achieved_activation"] == pytest.approx(float(activation[1]), rel=1e-2)
    assert compared["result"]["baseline"]["stuck"] is True
    assert compared["result"]["baseline_activation"] == 0.0
    assert [model["name"] for model in models["models"]] == ["digits"]
    assert "layer3" in [layer["name"] for layer in layers["layers"]]


def test_the_printed_id_is_that_of_the_printed_question() -> None:
    spec = Spec(model="digits", layer="layer3", unit=7)
    assert spec.identity(Catalog.from_file().load("digits").info) in README


def test_the_python_lines_work_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, _ = blocks("python")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    activations = [float(line) for line in capsys.readouterr().out.split()]
    assert len(activations) == 10
    assert min(activations) > 0
    with Image.open(tmp_path / "digits.png") as picture:
        assert picture.size == (5 * 34 - 2, 2 * 34 - 2)


def test_the_lines_of_the_client_work_as_printed(
    served_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, program = blocks("python")
    monkeypatch.setenv("PROXYGRAD_URL", served_url)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    activation, counted = capsys.readouterr().out.splitlines()
    assert float(activation) > 0
    assert counted == "10 of 10"
    with Image.open(tmp_path / "zero.png") as picture, Image.open(tmp_path / "digits.png") as sheet:
        assert picture.size == (32, 32)
        assert sheet.width > picture.width
