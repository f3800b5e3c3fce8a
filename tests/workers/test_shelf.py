"""Broken models are shown with their problem and keep nobody else from being served."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="networks are torch's")

from proxygrad.errors import ModelError, UnknownModel
from proxygrad.models import Catalogue
from workers.shelf import Shelf

pytestmark = pytest.mark.engine


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    models = tmp_path / "models.toml"
    models.write_text(
        '[models.broken]\nbuilder = "proxygrad.models.digits:digits"\nweights = "broken.safetensors"\n'
        "input_shape = [1, 32, 32]\n"
    )
    return Shelf.load(Catalogue.from_file(models), "cpu")


def test_the_good_one_is_served_and_the_broken_one_explained(shelf: Shelf, tmp_path: Path) -> None:
    served = {model.name: model for model in shelf.served}
    assert served["digits"].info is not None
    assert served["digits"].problem is None
    problem = served["broken"].problem
    assert problem is not None
    assert problem.code == "model_unavailable"
    assert str(tmp_path / "broken.safetensors") in problem.detail


def test_a_network_or_the_reason(shelf: Shelf) -> None:
    assert shelf.network("digits").info.name == "digits"
    with pytest.raises(ModelError, match=r"broken\.safetensors"):
        shelf.network("broken")
    with pytest.raises(UnknownModel, match=r"'digit'.*near names: digits"):
        shelf.network("digit")
