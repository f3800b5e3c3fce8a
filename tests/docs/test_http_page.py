"""docs/http.md does what it says: its commands run and its bodies are accepted by a running service."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from proxygrad.pictures import npy_file

pytestmark = pytest.mark.engine

PAGE = (Path(__file__).parents[2] / "docs/http.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [text for language, text in BLOCKS if language == "sh" and "curl" in text]
REQUESTS = [json.loads(text) for language, text in BLOCKS if language == "json" and '"unit":' in text]


def _run(command: str, folder: Path, url: str, job_id: str = "") -> str:
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "URL": url, "ID": job_id, "no_proxy": "*"}
    ran = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return ran.stdout


def _finished(url: str, **request: object) -> dict[str, object]:
    answer = httpx.post(
        f"{url}/v1/visualizations", json=request, headers={"Prefer": "wait=60"}, timeout=90, trust_env=False
    )
    document: dict[str, object] = answer.raise_for_status().json()
    assert document["state"] == "succeeded", document
    return document


def _few_steps(request: dict[str, Any]) -> dict[str, object]:
    """The fields that make it short; the steps of chains follow from others."""
    if request.get("sampler") != "langevin":
        return {"steps": 8}
    return {"langevin": {**request["langevin"], "burn_in": 4, "thinning": 2}}


def test_the_commands_about_images_and_events_work_as_printed(served_url: str, tmp_path: Path) -> None:
    job_id = str(_finished(served_url, model="digits", layer="layer3", unit=7, steps=8)["id"])
    (images,) = (text for text in COMMANDS if "/images/0" in text)
    _run(images, tmp_path, served_url, job_id)
    with Image.open(tmp_path / "unit.webp") as webp, Image.open(tmp_path / "small.webp") as small:
        assert (webp.format, small.format) == ("WEBP", "WEBP")
        assert max(small.size) <= 32
    pixels = np.load(io.BytesIO((tmp_path / "unit.npy").read_bytes()))
    assert pixels.shape == (1, 32, 32)

    (events,) = (text for text in COMMANDS if "/events" in text)
    assert '"state":"succeeded"' in _run(events, tmp_path, served_url, job_id)


def test_the_commands_about_batches_work_as_printed(served_url: str, tmp_path: Path) -> None:
    submit, follow = (text for text in COMMANDS if "/v1/batches" in text)
    batch = json.loads(_run(submit, tmp_path, served_url))
    ended, _ = json.JSONDecoder().raw_decode(_run(follow, tmp_path, served_url, batch["id"]))
    assert ended["state"] == "succeeded"
    with Image.open(tmp_path / "fc.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width >= 5 * 96


def test_the_bodies_that_it_shows_are_accepted(served_url: str) -> None:
    assert REQUESTS
    for request in REQUESTS:
        document = _finished(served_url, **{**request, **_few_steps(request)})
        assert isinstance(document["images"], list)
        baselines = 2 if request.get("compare") else 1
        assert len(document["images"]) == baselines * request.get("images", 1)


def test_the_commands_about_attributions_work_as_printed(served_url: str, tmp_path: Path) -> None:
    for name in ("bar", "first"):
        Image.new("L", (40, 40), 200).save(tmp_path / f"{name}.png")
    sample = npy_file((2, 1, 32, 32), bytes(2 * 32 * 32), "|u1")
    (tmp_path / "sample.npy").write_bytes(sample)
    commands = [text for text in COMMANDS if "/v1/attributions" in text]
    documents = [json.loads(_run(command, tmp_path, served_url)) for command in commands]
    assert [each["state"] for each in documents] == ["succeeded"] * 2, documents
    assert [each["progress"]["steps"] for each in documents] == [1, 4]


def test_the_layer_that_it_shows_is_served(served_url: str) -> None:
    (shown,) = (json.loads(text) for language, text in BLOCKS if language == "json" and '"stage"' in text)
    served = httpx.get(f"{served_url}/v1/models/digits/layers/{shown['name']}", trust_env=False).json()
    assert {name: served[name] for name in shown} == shown
