"""Every example runs as its docstring says, in a folder of its own."""

from __future__ import annotations

import ast
import json
import runpy
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

import proxygrad

ROOT = Path(__file__).parents[1]

#: What each script leaves behind; `resnet20` is imported by a worker and does nothing by itself.
PICTURES = {
    "direction": 1,
    "diversity": 1,
    "langevin": 1,
    "own_network": 3,
    "toy_functions": 1,
    "vit": 5,
}

pytestmark = pytest.mark.engine


def test_none_is_forgotten() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*PICTURES, "resnet20"}


def cells() -> list[dict[str, Any]]:
    """The code cells of the notebook."""
    notebook = json.loads((ROOT / "examples/quickstart.ipynb").read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shown(value: object) -> list[str]:
    """What a notebook shows of a value: the media types that it offers."""
    methods = {"text/html": "_repr_html_", "image/png": "_repr_png_"}
    return [kind for kind, name in methods.items() if (show := getattr(value, name, None)) and show()]


def test_the_notebook_runs_and_shows_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell in one namespace, as a kernel does; the last expression of a cell is shown."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in cells():
        *statements, last = ast.parse("".join(cell["source"])).body
        shows = isinstance(last, ast.Expr)
        before = ast.Module(body=statements if shows else [*statements, last], type_ignores=[])
        exec(compile(before, "quickstart.ipynb", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "quickstart.ipynb", "eval"), names)  # noqa: S307
            (stored,) = [each["data"] for each in cell["outputs"] if each["output_type"] == "execute_result"]
            assert set(shown(value)) == stored.keys() & {"text/html", "image/png"}
    plain, proxy = cast(Any, names["ascend"])(slope=0.0), cast(Any, names["ascend"])(slope=0.05)
    assert (plain, proxy > 1) == (0.0, True)
    assert isinstance(names["network"], proxygrad.Network)
    assert (tmp_path / "digits.png").exists()


def test_the_notebook_holds_the_outputs_of_one_run() -> None:
    counts = [cell["execution_count"] for cell in cells()]
    assert counts == list(range(1, len(counts) + 1))
    for cell in cells():
        assert cell["outputs"], "".join(cell["source"])
        assert all(output["output_type"] in ("execute_result", "stream") for output in cell["outputs"])


@pytest.mark.parametrize("name", PICTURES)
def test_an_example_draws_its_pictures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(ROOT / "examples" / f"{name}.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script])
    runpy.run_path(script, run_name="__main__")
    drawn = list(tmp_path.glob("*.png"))
    assert len(drawn) == PICTURES[name]
    for path in drawn:
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors(256) or []) > 16, f"{path.name} shows nothing"
