"""The command line as a user meets it: real processes' worth of work, in this process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from proxygrad.cli.main import main


def test_render_writes_the_picture_and_says_what_was_achieved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "fc3.png"
    assert main(["render", "digits", "fc", "3", "--steps", "8", "--seed", "1", "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "digits fc 3, logit" in printed
    assert "achieved activation" in printed
    assert str(output) in printed
    with Image.open(output) as picture:
        assert (picture.size, picture.mode) == ((32, 32), "L")


def test_render_writes_every_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "fc3.png"
    words = ["--steps", "4", "--images", "2", "--compare", "-o", str(output)]
    assert main(["render", "digits", "fc", "3", *words]) == 0
    names = ["fc3-0.png", "fc3-1.png", "fc3-baseline-0.png", "fc3-baseline-1.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert ", ".join(str(tmp_path / name) for name in names) in capsys.readouterr().out


def test_models_and_layers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capsys.readouterr().out.startswith("digits               input 1x32x32, ")
    assert main(["models", "digits"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("layer3 "))
    assert row.split() == ["layer3", "feature_map", "Stage", "64", "64x4x4", "post", "relu"]


def test_a_broken_model_is_listed_with_its_reason_and_the_others_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models.toml"
    models.write_text("[models.gone]\nbuilder = 'torchvision:squeezenet1_0'\nweights = 'gone.safetensors'\n")
    assert main(["models", "--models", str(models)]) == 1
    printed = capsys.readouterr().out
    assert "gone.safetensors does not exist" in printed
    assert "digits               input" in printed


def test_the_models_file_is_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models.toml").write_text("[models.mine]\nbuilder = 'torchvision:squeezenet1_0'\n")
    monkeypatch.setenv("PROXYGRAD_HOME", str(tmp_path))
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert re.search("mine                 input 3x224x224, .*\n  note: no class names: ", printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digitz", "fc", "3"], "error: unknown model 'digitz'; near names: digits"),
        (["digits", "fd", "3"], "error: unknown layer of model 'digits': 'fd'; near names: fc"),
        (["digits", "fc", "10"], "error: unit 10 is out of range: layer 'fc' has units 0 to 9"),
        (["digits", "fc", "3", "--steps", "0"], "error: steps 0: Input should be greater than"),
        (
            ["digits", "fc", "3", "--steps", "1", "-o", "/dev/null/x.png"],
            "error: cannot write /dev/null/x.png",
        ),
        (["digits", "fc", "3", "--device", "warp:9"], "error: device 'warp:9'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith(message)
    assert "Traceback" not in printed.err


_WITHOUT = """
import runpy, sys
module, missing, *sys.argv = sys.argv[1:]
sys.modules[missing] = None
if module == "proxygrad":
    from proxygrad.cli.main import main
    sys.exit(main())
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "missing", "arguments", "extra"),
    [
        ("proxygrad", "torch", ["models"], "engine"),
        ("proxygrad", "httpx", ["submit", "digits", "fc", "0"], "client"),
        ("proxygrad", "redis", ["serve"], "service,worker"),
        ("proxygrad", "redis", ["keys", "list"], "service"),
        ("service", "uvicorn", [], "gateway"),
        ("workers", "rq", [], "worker"),
    ],
)
def test_the_extra_that_is_missing_is_named(
    module: str, missing: str, arguments: list[str], extra: str, tmp_path: Path
) -> None:
    """In a process where the package cannot be imported, as where another extra is installed."""
    command = [sys.executable, "-c", _WITHOUT, module, missing, module, *arguments]
    environ = {**os.environ, "PROXYGRAD_HOME": str(tmp_path), "REDIS_URL": ""}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: this needs {missing!r}, which is not installed: pip install --editable '.[{extra}]' in a "
        "checkout of the project\n"
    )
